"""The shards of a training run: which are trained on, which are held out, in the order in which they were taken up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SHARE = 0.1  # of the peptides that are held out where none are named


class Pool:
    """Shards in a directory, to which more may come while the run is under way.

    Args:
        data: the directory.
        read: from a shard's path to what is trained on.
        named: peptides to hold out; where there are none, a tenth by `seed`, the same whenever a shard arrives.
        seed: of that choice.

    Attributes:
        trained: what was read, by the peptide's name, in the order of taking up.
        held: names of the peptides that are held out.
    """

    def __init__(self, data: Path, read: Callable[[Path], Any], named: Sequence[str], seed: int):
        self.data, self.read, self.named, self.seed = data, read, tuple(named), seed
        self.trained: dict[str, Any] = {}
        self.held: list[str] = list(named)

    def path(self, name: str) -> Path:
        """The shard of a peptide."""
        return self.data / f"{name}.safetensors"

    def waiting(self) -> list[str]:
        """Names of the peptides whose shards are there and not taken up."""
        there = sorted(path.stem for path in self.data.glob("*.safetensors"))
        return [name for name in there if name not in self.trained and name not in self.held]

    def take_up(self, names: Sequence[str]) -> None:
        """Read these shards, or hold them out."""
        held = [] if self.named else [n for n in names if lot(n, self.seed) < SHARE]
        if not self.named and not self.held and not held and len(names) > 1:
            held = [min(names, key=lambda n: lot(n, self.seed))]
        self.held += held
        self.trained |= {name: self.read(self.path(name)) for name in names if name not in held}

    def restore(self, trained: Sequence[str], held: Sequence[str]) -> None:
        """Take up these shards as an earlier run had them, whatever has come since."""
        self.held = list(held)
        self.trained = {name: self.read(self.path(name)) for name in trained}

    def measurable(self) -> list[str]:
        """Names of the held-out peptides that have shards."""
        return [name for name in self.held if self.path(name).exists()]


def lot(name: str, seed: int) -> float:
    """A number in [0, 1) that a peptide draws; it depends on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") / 2**64
