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
from timewarp.flow.losses import Own
from timewarp.flow.tokens import Tokens, pad_stack, stacked
from timewarp.settings import SettingsError

PARTS = ("torsions", "turns", "mean", "noise", "curves")


@dataclass(frozen=True)
class Frames:
    """Tokens of the molecule, and for each frame what `Internal.log_prob` takes."""

    sequence: str
    tokens: Tokens
    torsions: Tensor
    turns: Tensor
    mean: Tensor
    noise: Tensor
    curves: Tensor
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
        turns = chart.join(shard.torsions, shard.mean)[..., 2]
        mean, noise = laid(chart, shard.mean), laid(chart, shard.noise)
        fused = len(shard.torsions) >= WORTH_FUSING and shutil.which("c++") is not None
        growth = Growth(shard.molecule, chart, shard.facts["recipe"]["temperature"], fused)
        # in half precision: they are most of what is kept, and features
        curves = torch.cat([growth.curves(part).half() for part in shard.torsions.split(512)])
        parts = {"torsions": shard.torsions, "turns": turns, "mean": mean, "noise": noise}
        parts["curves"] = curves
        moved = {name: part.to(device) for name, part in parts.items()}
        return cls(shard.sequence, tokens.to(device), shard=path, **moved)

    def __len__(self) -> int:
        return len(self.torsions)


WORTH_FUSING = 256  # frames, from which the fused curves save more than they take to compile
THIN = 4  # one frame in so many teaches the stiff coordinates
BLUR = 0.1  # of the static features in training: without it, a few dozen molecules are learned by heart


@dataclass(frozen=True)
class Minibatch:
    """Frames of several molecules, padded: [molecules, frames, ...]."""

    tokens: Tokens
    frames: tuple[Tensor, ...]
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
            share: (rank, count) of the processes; each keeps a block of the frames, so that thinning by a divisor of its
                length keeps the same frames in one process as in several.
        """
        by_size = sorted(range(len(pool)), key=lambda i: (pool[i].tokens.atoms.shape[0], pool[i].sequence))
        first = int(torch.randint(len(pool), (), generator=rng))
        near = [by_size[(first + k) % len(pool)] for k in range(min(len(pool), 3 * molecules))]
        chosen = [pool[near[k]] for k in torch.randperm(len(near), generator=rng)[:molecules].tolist()]
        rank, count = share
        block = slice(rank * frames // count, (rank + 1) * frames // count)
        picks = [torch.randint(len(f), (frames,), generator=rng)[block] for f in chosen]
        parts = tuple(
            pad_stack(
                [getattr(f, name)[pick.to(f.torsions.device)].float() for f, pick in zip(chosen, picks, strict=True)]
            )
            for name in PARTS
        )
        return cls(stacked([f.tokens for f in chosen]).blurred(BLUR, rng), parts)

    def log_prob(self, model: Internal, rng: torch.Generator) -> dict[str, Tensor]:
        """The parts of ln p of each frame; velocities are drawn fresh."""
        velocities = None
        if channels := model.config.velocities:
            noise = self.frames[PARTS.index("noise")]
            shape = (*noise.shape[:-1], channels)
            velocities = torch.randn(shape, generator=rng, dtype=noise.dtype, device=noise.device)
            velocities = torch.where(self.tokens.real[:, None, :, None], velocities, 0.0)
        parts = dict(zip(PARTS, self.frames, strict=True))
        torsion, stiff = model.log_prob(self.tokens, **parts, velocities=velocities, thin=THIN)
        return {"torsion": torsion, "stiff": stiff}

    def judged(self, own: Sequence[Own]) -> Minibatch:
        """The same frames, with molecules for own samples."""
        return replace(self, own=own)
