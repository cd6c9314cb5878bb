"""Training frames of one molecule, in the coordinates that the flow's likelihood is computed in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from timewarp.assemble.generate import Shard
from timewarp.flow.chart import InternalChart
from timewarp.flow.internal import laid, relaxed_geometry
from timewarp.flow.tokens import Tokens, pad_stack, stacked

PARTS = ("torsions", "turns", "mean", "noise", "relaxed")


@dataclass(frozen=True)
class Frames:
    """Tokens of the molecule, and for each frame what `Internal.log_prob` takes."""

    sequence: str
    tokens: Tokens
    torsions: Tensor
    turns: Tensor
    mean: Tensor
    noise: Tensor
    relaxed: Tensor
    shard: Path

    @classmethod
    def read(cls, path: Path) -> Frames:
        shard = Shard.read(path)
        chart = InternalChart(shard.molecule, whitening=shard.whitening)
        tokens = Tokens.of(shard.molecule, chart, shard.facts["recipe"]["temperature"])
        turns, relaxed = relaxed_geometry(chart, shard.torsions, shard.mean)
        mean, noise = laid(chart, shard.mean), laid(chart, shard.noise)
        return cls(shard.sequence, tokens, shard.torsions, turns, mean, noise, relaxed, path)

    def __len__(self) -> int:
        return len(self.torsions)


@dataclass(frozen=True)
class Minibatch:
    """Frames of several molecules, padded: [molecules, frames, ...]."""

    tokens: Tokens
    frames: tuple[Tensor, ...]

    @classmethod
    def draw(cls, pool: list[Frames], molecules: int, frames: int, rng: torch.Generator) -> Minibatch:
        """Some frames of some molecules, uniformly."""
        chosen = [pool[i] for i in torch.randperm(len(pool), generator=rng)[:molecules].tolist()]
        picks = [torch.randint(len(f), (frames,), generator=rng) for f in chosen]
        parts = tuple(
            pad_stack([getattr(f, name)[pick] for f, pick in zip(chosen, picks, strict=True)]) for name in PARTS
        )
        return cls(stacked([f.tokens for f in chosen]), parts)
