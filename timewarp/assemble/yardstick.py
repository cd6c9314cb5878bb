"""The ensemble that samples of a peptide are compared with, made once and kept in the user's cache.

Two independent halves of equal size, from a method that knows no flow: the first is compared with, and its distance
from the second is the floor that no sampler gets below but by luck.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from timewarp.analysis.tica import Tica
from timewarp.atomic import write_atomically

FORMAT = 1  # of the files; another number makes all of them anew


@dataclass(frozen=True)
class Yardstick:
    """Frames of the Boltzmann distribution, and slow coordinates.

    Attributes:
        positions: nm, of both halves.
        energy: U/kT.
        tica: the slow coordinates, on `tica_features`, scaled to kinetic distances.
        floors: distances of one half from the other, by name.
        facts: how it was made.
    """

    positions: Float[np.ndarray, "2 frames atoms 3"]
    energy: Float[np.ndarray, "2 frames"]
    tica: Tica
    floors: Mapping[str, float]
    facts: Mapping[str, Any]

    def encode(self) -> bytes:
        """What its file holds."""
        tensors: dict[str, np.ndarray] = {
            "positions": self.positions.astype(np.float32),
            "energy": self.energy.astype(np.float64),
            "tica.mean": np.asarray(self.tica.mean, dtype=np.float64),
            "tica.components": np.ascontiguousarray(self.tica.components, dtype=np.float64),
            "tica.eigenvalues": np.ascontiguousarray(self.tica.eigenvalues, dtype=np.float64),
        }
        facts = {"format": FORMAT, "lag": self.tica.lag, "floors": dict(self.floors), "facts": dict(self.facts)}
        return save(tensors, {"yardstick": json.dumps(facts)})

    @classmethod
    def read(cls, path: Path) -> Yardstick:
        """The inverse of `encode`.

        Raises:
            ValueError: if the file is not one of these, or not whole.
            OSError: if it cannot be read.
        """
        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {})["yardstick"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["format"] != FORMAT or not np.isfinite(tensors["positions"]).all():
                raise ValueError(f"expected finite frames in format {FORMAT}")
            tica = Tica(tensors["tica.mean"], tensors["tica.components"], tensors["tica.eigenvalues"], facts["lag"])
            return cls(tensors["positions"], tensors["energy"], tica, facts["floors"], facts["facts"])
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"expected a reference ensemble at {path}, found none: {error}") from error


def cache() -> Path:
    """Where reference ensembles are kept: TIMEWARP_CACHE, else `timewarp/reference` in the user's cache directory."""
    own = os.environ.get("TIMEWARP_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "timewarp" / "reference"


def kept(identity: Mapping[str, Any], name: str, make: Callable[[], Yardstick]) -> Yardstick:
    """The yardstick of this identity, from the cache, or made and put there.

    One that cannot be read is made again; where the cache cannot be written, it is made each time.

    Args:
        identity: JSON values that decide what it is: force field, temperature, recipe.
        name: of the peptide, for a person who looks into the cache.
        make: makes it.
    """
    key = sha256(json.dumps({"format": FORMAT, **identity}, sort_keys=True).encode()).hexdigest()[:16]
    path = cache() / f"{name}-{key}.safetensors"
    if path.exists():
        try:
            return Yardstick.read(path)
        except (ValueError, OSError):
            pass  # a reader may not delete it, the writer below replaces it
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, made.encode())
    except OSError:
        pass  # a full or read-only disk costs time, not the run
    return made
