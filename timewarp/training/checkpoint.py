"""A checkpoint: NAME.safetensors (weights) and NAME.json (what they are and where they come from)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights and their card.

    Attributes:
        tensors: the weights.
        card: JSON: at least `kind`, `config` (of the model), `units`, `data`, `metrics`.
    """

    tensors: Mapping[str, Tensor]
    card: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that are others for other weights."""
        found = hashlib.sha256()
        for name, values in sorted(self.tensors.items()):
            found.update(f"{name} {values.dtype} {list(values.shape)}".encode())
            found.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write `path`.safetensors, then `path`.json, each whole or not at all."""
        weights, card = _files(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        half = weights.with_name(f".{weights.name}.tmp")
        save_file({k: v.detach().cpu().contiguous() for k, v in self.tensors.items()}, half)
        os.replace(half, weights)
        half = card.with_name(f".{card.name}.tmp")
        half.write_text(json.dumps({"version": VERSION, **self.card}, indent=1) + "\n")
        os.replace(half, card)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint by its path without suffix.

        Raises:
            CheckpointError: if a file is absent, damaged, or of another version.
        """
        weights, card = _files(path)
        for file in (card, weights):
            if not file.is_file():
                raise CheckpointError(f"expected the checkpoint file {file}, found none; check the name")
        try:
            facts = json.loads(card.read_text())
            tensors = load_file(weights)
        except (ValueError, RecursionError, SafetensorError) as error:
            raise CheckpointError(
                f"expected a checkpoint at {path}, found damaged files; fetch it again: {error}"
            ) from error
        if not isinstance(facts, dict) or facts.get("version") != VERSION:
            found = facts.get("version") if isinstance(facts, dict) else type(facts).__name__
            raise CheckpointError(f"expected a checkpoint of version {VERSION} at {path}, found {found}")
        for name, values in tensors.items():
            if not values.isfinite().all():
                raise CheckpointError(f"expected finite weights at {path}, found others in {name}; train it again")
        return cls(tensors, facts)


def _files(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")
