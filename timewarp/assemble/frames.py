"""Training frames of one molecule, in the coordinates that the internal flow's likelihood is computed in."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from timewarp.assemble.generate import Shard
from timewarp.flow.chart import InternalChart
from timewarp.flow.growth import Growth
from timewarp.flow.internal import Internal, laid
from timewarp.flow.losses import Own, Terms
from timewarp.flow.tokens import Tokens, pad_stack, stacked
from timewarp.settings import SettingsError

PARTS = ("torsions", "curves", "noise")


@dataclass(frozen=True)
class Frames:
    """Tokens of the molecule, and for each frame what `Internal.log_prob` takes and its `Marginal`.

    Behind the thermal frames, which are `count`, stand torsions that a flow drew, if the shard has some.
    """

    sequence: str
    tokens: Tokens
    torsions: Tensor
    curves: Tensor
    noise: Tensor
    free: Tensor
    count: int
    shard: Path

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> Frames:
        """The frames of a shard.

        Raises:
            SettingsError: if the shard was made with another chart.
        """
        shard = Shard.read(path)
        chart = InternalChart(shard.molecule, whitening=shard.whitening)
        if (shard.torsions.shape[1], shard.noise.shape[1]) != (chart.torsions, chart.stiffs):
            raise SettingsError(
                f"{path}: expected {chart.torsions} free torsions, found {shard.torsions.shape[1]}: it was made with "
                "another version; remove it and make it again with timewarp data"
            )
        tokens = Tokens.of(shard.molecule, chart, shard.facts["recipe"]["temperature"])
        fused = len(shard.torsions) >= WORTH_FUSING and shutil.which("c++") is not None
        growth = Growth(shard.molecule, chart, shard.facts["recipe"]["temperature"], fused)
        # in half precision: they are most of what is kept, and features
        torsions = torch.cat([shard.torsions, shard.drawn[0]])
        curves = torch.cat([growth.curves(part).half() for part in torsions.split(512)])
        noise = laid(chart, torch.cat([shard.noise, shard.noise.new_zeros(len(shard.drawn[0]), chart.stiffs)]))
        free = torch.cat([shard.free, shard.drawn[1]]).float()
        parts = {"torsions": torsions, "curves": curves, "noise": noise, "free": free}
        moved = {name: part.to(device) for name, part in parts.items()}
        return cls(shard.sequence, tokens.to(device), count=len(shard.torsions), shard=path, **moved)

    def __len__(self) -> int:
        return self.count

    def picked(self, frames: int, own: int, rng: torch.Generator) -> Tensor:
        """Random thermal frames, then drawn ones (more thermal ones, if there are none)."""
        first, last = (self.count, len(self.torsions)) if len(self.torsions) > self.count else (0, self.count)
        thermal = torch.randint(self.count, (frames,), generator=rng)
        return torch.cat([thermal, torch.randint(first, last, (own,), generator=rng)])


WORTH_FUSING = 256  # frames, from which the fused curves save more than they take to compile
DRAWN = 2  # one drawn frame for so many thermal ones
BLUR = 0.1  # of the static features in training: without it, a few dozen molecules are learned by heart


@dataclass(frozen=True)
class Minibatch:
    """Frames of several molecules, padded: [molecules, frames, ...]; of them `count` thermal, the others drawn."""

    tokens: Tokens
    frames: tuple[Tensor, ...]
    free: Tensor
    count: int
    own: Sequence[Own] = ()

    @classmethod
    def draw(
        cls, pool: Sequence[Frames], molecules: int, frames: int, rng: torch.Generator, share: tuple[int, int] = (0, 1)
    ) -> Minibatch:
        """Some frames of some molecules of about one size, so that little is padded; each has the same chance.

        Args:
            pool: of all molecules.
            molecules: at most.
            frames: of each.
            rng: the same in all processes, which all draw the whole minibatch.
            share: (rank, count) of the processes; each keeps a block of the frames.
        """
        by_size = sorted(range(len(pool)), key=lambda i: (pool[i].tokens.atoms.shape[0], pool[i].sequence))
        first = int(torch.randint(len(pool), (), generator=rng))
        near = [by_size[(first + k) % len(pool)] for k in range(min(len(pool), 3 * molecules))]
        chosen = [pool[near[k]] for k in torch.randperm(len(near), generator=rng)[:molecules].tolist()]
        rank, count = share
        block = slice(rank * frames // count, (rank + 1) * frames // count)
        drawn = frames // DRAWN
        half = slice(frames + rank * drawn // count, frames + (rank + 1) * drawn // count)
        rows = [f.picked(frames, drawn, rng) for f in chosen]
        picks = [torch.cat([row[block], row[half]]) for row in rows]
        parts = tuple(
            pad_stack(
                [getattr(f, name)[pick.to(f.torsions.device)].float() for f, pick in zip(chosen, picks, strict=True)]
            )
            for name in PARTS
        )
        free = torch.stack([f.free[pick.to(f.free.device)] for f, pick in zip(chosen, picks, strict=True)])
        tokens = stacked([f.tokens for f in chosen]).blurred(BLUR, rng)
        return cls(tokens, parts, free, block.stop - block.start)

    def terms(self, model: Internal, rng: torch.Generator) -> Terms:
        """The parts of ln p of each thermal frame, and how far ln p(tau) is off, of all; velocities are drawn fresh."""
        velocities, channels = None, model.config.velocities
        torsions, curves, noise = self.frames
        if channels:
            shape = (*noise.shape[:-1], channels)
            velocities = torch.randn(shape, generator=rng, dtype=noise.dtype, device=noise.device)
            velocities = torch.where(self.tokens.real[:, None, :, None], velocities, 0.0)
        found = model.log_prob(self.tokens, torsions, curves, noise, velocities)
        gap = None if channels else self.free - found["torsion"]
        return Terms({name: part[:, : self.count] for name, part in found.items()}, gap)

    def judged(self, own: Sequence[Own]) -> Minibatch:
        """The same frames, with molecules for own samples."""
        return replace(self, own=own)
