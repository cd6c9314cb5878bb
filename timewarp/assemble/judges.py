"""Peptides of shards with their energies: what judges a flow's samples, in validation and in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timewarp.assemble.generate import Shard
from timewarp.assemble.peptide import Peptide
from timewarp.energy import Potential
from timewarp.state import Positions


@dataclass(frozen=True)
class Judge:
    """A peptide and thermal frames of it, on one device."""

    peptide: Peptide
    frames: Positions

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> Judge:
        """The peptide of a shard, at the temperature of the shard."""
        shard = Shard.read(path)
        temperature = shard.facts["recipe"]["temperature"]
        potential = Potential(shard.molecule, temperature, device=device)
        peptide = Peptide.of(shard.molecule, temperature, potential=potential, whitening=shard.whitening)
        return cls(peptide, shard.positions.to(device))


class Judges:
    """Judges by name, each made once.

    Args:
        path: from a peptide's name to its shard.
        device: where they compute.
    """

    def __init__(self, path: Callable[[str], Path], device: str = "cpu"):
        self.path, self.device = path, device
        self._made: dict[str, Judge] = {}

    def __call__(self, name: str) -> Judge:
        """The judge of a peptide."""
        if name not in self._made:
            self._made[name] = Judge.read(self.path(name), self.device)
        return self._made[name]
