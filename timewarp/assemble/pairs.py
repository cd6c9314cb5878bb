"""Training pairs of one molecule for the Cartesian flow: successive kept frames of a walker, in Cartesian coordinates.

A flow may be trained on any joint distribution of pairs that is the same when the two are exchanged. The pose of a
frame means nothing, so the second is laid on the first and then moved a little, which keeps the joint distribution
exchangeable and its density finite; then both turn together, at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timewarp.assemble.generate import Shard
from timewarp.flow.cartesian import Cartesian
from timewarp.flow.cartesian_rotation import randomly_rotated
from timewarp.flow.chart import InternalChart
from timewarp.flow.losses import Own, Terms
from timewarp.flow.tokens import Tokens, pad_stack
from timewarp.settings import SettingsError
from timewarp.state import State

SHIFT = 0.05  # nm, standard deviation of the second frame's displacement along each axis
TURN = 0.1  # rad, the same of its rotation about each axis


@dataclass(frozen=True)
class Pairs:
    """Features of the atoms, and the kept frames of every walker in their order, in nm, centred."""

    sequence: str
    features: Float[Tensor, "atoms features"]
    frames: Float[Tensor, "kept walkers atoms 3"]
    shard: Path

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> Pairs:
        """The frames of a shard.

        Raises:
            SettingsError: if the shard keeps fewer than two frames a walker.
        """
        shard = Shard.read(path)
        recipe = shard.facts["recipe"]
        frames = shard.positions.unflatten(0, (-1, recipe["walkers"]))
        if len(frames) < 2:
            raise SettingsError(f"{path}: expected at least 2 frames a walker to make pairs of, found {len(frames)}")
        chart = InternalChart(shard.molecule, whitening=shard.whitening)
        tokens = Tokens.of(shard.molecule, chart, recipe["temperature"])
        frames = frames - frames.mean(-2, keepdim=True)
        return cls(shard.sequence, tokens.atoms[chart.back].to(device), frames.to(device), path)

    def __len__(self) -> int:
        return (len(self.frames) - 1) * self.frames.shape[1]

    def drawn(self, pick: Tensor, swap: Tensor) -> Float[Tensor, "pairs 2 atoms 3"]:
        """The pairs of these numbers, below `len`, some of them swapped; both centred, in poses of their own."""
        kept, walker = pick // self.frames.shape[1], pick % self.frames.shape[1]
        both = torch.stack([self.frames[kept, walker], self.frames[kept + 1, walker]], 1)
        return torch.where(swap[:, None, None, None], both.flip(1), both)


@dataclass(frozen=True)
class PairBatch:
    """Pairs of several molecules, padded: (positions, positions one lag later), each [pairs, atoms, 3]."""

    features: Float[Tensor, "pairs atoms features"]
    start: Float[Tensor, "pairs atoms 3"]
    end: Float[Tensor, "pairs atoms 3"]
    real: Bool[Tensor, "pairs atoms"]
    own: Sequence[Own] = ()

    @classmethod
    def draw(
        cls, pool: Sequence[Pairs], molecules: int, frames: int, rng: torch.Generator, share: tuple[int, int] = (0, 1)
    ) -> PairBatch:
        """Some pairs of some molecules, uniformly; the arguments are those of `Minibatch.draw`."""
        chosen = [pool[i] for i in torch.randperm(len(pool), generator=rng)[:molecules].tolist()]
        rank, count = share
        drawn = []
        for pairs in chosen:
            device = pairs.frames.device
            pick = torch.randint(len(pairs), (frames,), generator=rng)
            swap = torch.rand(frames, generator=rng) < 0.5
            moves = torch.randn(frames, 2, 3, generator=rng)
            both = pairs.drawn(pick.to(device), swap.to(device)).cpu()
            drawn.append(randomly_rotated(nearby(both, moves), rng)[rank::count].to(device))
        masks = [torch.ones(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device) for x in drawn]
        described = [p.features.expand(len(x), -1, -1) for p, x in zip(chosen, drawn, strict=True)]
        both, features, real = (pad_stack(part).flatten(0, 1) for part in (drawn, described, masks))
        return cls(features, both[:, 0], both[:, 1], real)

    def terms(self, model: Cartesian, rng: torch.Generator) -> Terms:
        """ln p of the second of each pair given the first; velocities are drawn fresh."""
        shape = (*self.end.shape[:-1], model.config.velocities)
        velocities = torch.randn(shape, generator=rng, dtype=self.end.dtype, device=self.end.device)
        velocities = torch.where(self.real[..., None], velocities, 0.0)
        transition = model(self.features, self.start, self.real)
        return Terms({"transition": transition.log_prob(State(self.end, velocities))})

    def judged(self, own: Sequence[Own]) -> PairBatch:
        """The same pairs, with molecules for own samples."""
        return replace(self, own=own)


def nearby(
    both: Float[Tensor, "pairs 2 atoms 3"], moves: Float[Tensor, "pairs 2 3"]
) -> Float[Tensor, "pairs 2 atoms 3"]:
    """The second of each pair laid on the first, then turned and shifted by `moves` (in standard deviations).

    The rotation of least squares is that of Kabsch 1976; both of a pair are centred.
    """
    first, second = both.double().unbind(1)
    u, _, v = torch.linalg.svd(second.mT @ first)
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.linalg.det(u @ v).sign()
    small = torch.linalg.matrix_exp(_cross(TURN * moves[:, 0].double()))
    second = second @ (u * sign[..., None, :]) @ v @ small.mT + SHIFT * moves[:, 1:].double()
    return torch.stack([first, second], 1).to(both)


def _cross(w: Tensor) -> Tensor:
    """The matrix of the cross product with w."""
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (torch.stack([zero, -z, y], -1), torch.stack([z, zero, -x], -1), torch.stack([-y, x, zero], -1))
    return torch.stack(rows, -2)
