"""What one process of a method leaves: frames, when each was there, and what it took to begin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from timewarp.atomic import write_atomically


@dataclass(frozen=True)
class Record:
    """Frames of the chains of one process, with wall-clock times since the method was asked for.

    Attributes:
        positions: nm.
        energy: kJ/mol.
        seconds: at which each frame was there.
        setup: seconds before the first move: interpreter, imports, structure, energy, weights, starting points.
        end: seconds at which sampling was over.
        facts: `acceptance`, `picoseconds`, `evaluations`, `notices`, ...
    """

    positions: Float[np.ndarray, "chains frames atoms 3"]
    energy: Float[np.ndarray, "chains frames"]
    seconds: Float[np.ndarray, " frames"]
    setup: float
    end: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls, chains: int, atoms: int, end: float, **facts: Any) -> Record:
        """No frame: the time was over before the first."""
        none = np.zeros((chains, 0, atoms, 3), dtype=np.float32)
        return cls(none, np.zeros((chains, 0)), np.zeros(0), end, end, facts)

    def write(self, path: Path) -> None:
        """Put it at `path`, whole or not at all."""
        from safetensors.numpy import save

        tensors: dict[str, np.ndarray] = {
            "positions": np.ascontiguousarray(self.positions, dtype=np.float32),
            "energy": np.ascontiguousarray(self.energy, dtype=np.float64),
            "seconds": np.ascontiguousarray(self.seconds, dtype=np.float64),
            "times": np.array([self.setup, self.end]),
        }
        write_atomically(path, save(tensors, {"facts": json.dumps(dict(self.facts))}))

    @classmethod
    def read(cls, path: Path) -> Record:
        """The inverse of `write`."""
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        setup, end = tensors.pop("times").tolist()
        return cls(tensors["positions"], tensors["energy"], tensors["seconds"], setup, end, facts)
