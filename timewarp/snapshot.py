"""Everything that a run needs to go on exactly: tensors, the state of the random numbers, and plain values."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FORMAT = 1
_RNG = "rng"


@dataclass(frozen=True)
class Snapshot:
    """A saved state. Tensors come back with their bits; `meta` and `run` are JSON.

    Attributes:
        tensors: the state of the chains, by name.
        rng: what `torch.Generator.get_state` gave.
        meta: plain values of whoever samples (steps done, counts, seconds).
        run: what the run directory keeps about itself.
    """

    tensors: Mapping[str, Tensor]
    rng: UInt8[Tensor, " bytes"]
    meta: Mapping[str, Any]
    run: Mapping[str, Any] = field(default_factory=dict)

    def generator(self, device: str | torch.device = "cpu") -> torch.Generator:
        """A generator that goes on where the saved one stood; it must be of the same kind of device."""
        generator = torch.Generator(device=device)
        generator.set_state(self.rng)
        return generator

    def encode(self) -> bytes:
        """The snapshot as a safetensors file."""
        tensors = {f"tensor.{name}": t.detach().cpu().clone().contiguous() for name, t in self.tensors.items()}
        tensors[_RNG] = self.rng.cpu().clone()
        plain = {"format": FORMAT, "sum": _sum(tensors), "meta": dict(self.meta), "run": dict(self.run)}
        return save(tensors, {"timewarp": json.dumps(plain)})

    @classmethod
    def decode(cls, raw: bytes) -> Snapshot:
        """The inverse of `encode`.

        Raises:
            ValueError: if the bytes are cut short or are not a snapshot.
        """
        try:
            length = int.from_bytes(raw[:8], "little")
            plain = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["timewarp"])
            flat = load(raw)
            if plain.get("sum", total := _sum(flat)) != total:
                raise ValueError("its bits have changed since it was written")
            rng, meta, run = flat.pop(_RNG), plain["meta"], plain["run"]
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a whole snapshot of a run: {error}") from error
        if plain["format"] != FORMAT:
            raise ValueError(f"expected a snapshot of format {FORMAT}, got {plain['format']}")
        return cls({name.removeprefix("tensor."): t for name, t in flat.items()}, rng, meta, run)


def _sum(tensors: Mapping[str, Tensor]) -> int:
    """A check sum of the bits of all tensors."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(np.ascontiguousarray(tensors[name].numpy()).reshape(-1).view(np.uint8).data, total)
    return total
