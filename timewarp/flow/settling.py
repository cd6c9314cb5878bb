"""The way to the relaxed geometry of given torsions, where one Newton step is far from enough.

The quadratic form P of `Stiff` knows the bonded terms on average and the pairs exactly; what it does not know (torsions
about the bonds of a ring, a wall) makes plain Newton steps crawl. What the slope was seen to change along the steps so
far mends P in those directions: limited-memory BFGS (Nocedal 1980), in the coordinates in which P is the identity. A
step that did not lower S shows a wall, of which differences say little, and what was seen is forgotten.

| symbol | variable |
|---|---|
| L^-1 dS/dR, P = L L^T | slope |
| s_k, y_k: earlier steps, and what they changed of it | past |
| H, of which H y_k = s_k for the last | quasi_newton |
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.response import Evaluated
from timewarp.state import Positions

if TYPE_CHECKING:
    from timewarp.flow.stiff import Stiff

FIRST = 4.0  # radius of the first step, in standard deviations
SETTLING = 30  # steps at most, where nothing else is said
SETTLED = 0.02  # kT, twice what a step would gain: from here on none is worth its cost
SHORTEST = 1e-3  # standard deviations: a radius that has shrunk to this finds nothing lower
HELD = 8  # steps that the curvature serves for
MEMORY = 6  # steps that are remembered
CURVED = 1e-3  # of P, along a step: what is flatter, or bent the other way, tells no step

Pair = tuple[Float[Tensor, "live stiffs"], Float[Tensor, "live stiffs"]]


@torch.no_grad()
def settled(
    stiff: Stiff,
    torsions: Float[Tensor, "count torsions"],
    mean: Float[Tensor, "count stiffs"],
    known: tuple[Evaluated, Float[Tensor, "count soft soft"]] | None = None,
    near: float | None = None,
    moving: int | None = None,
    most: int = SETTLING,
) -> tuple[Float[Tensor, "count stiffs"], Positions]:
    """(z, positions) of the lowest S that is found from z = `mean`, each row by itself.

    Steps stay within a radius that grows with each that lowers S, and shrinks with each that does not.

    Args:
        stiff: the law whose S and P these are.
        torsions: held.
        mean: where to begin.
        known: what there is at `mean`, and L of P there.
        near: a step that would gain less than half of this, in kT, is not taken; by default `SETTLED`.
        moving: how many of the soft coordinates move, the first; the others are held. All, by default.
        most: steps.
    """
    near = SETTLED if near is None else near
    if known is None:
        at = stiff.response.evaluate(torsions, mean)
        known = at, stiff.root_at(at.positions)
    at, lower = known
    best, here = mean.clone(), at.positions.clone()
    live = torch.arange(len(mean), device=mean.device)  # of those that still move: the numbers, and all that follows
    value, radius = (at.energy + at.log_det).nan_to_num(inf, inf, inf), mean.new_full((len(mean), 1), FIRST)
    positions, gradient = at.positions, at.gradient
    past: list[Pair] = []
    for step in range(most):
        if step and step % HELD == 0:
            lower, past = stiff.root_at(positions), []
        slope = stiff.whitened(lower, gradient, moving)
        way = quasi_newton(slope, past)
        go = (((slope * way).sum(1, keepdim=True) > near) & (radius > SHORTEST))[:, 0].nonzero()[:, 0]
        if len(go) < len(live):
            best[live], here[live] = mean, positions
            if not len(go):
                return best, here
            live, torsions, mean, lower, value, radius = (t[go] for t in (live, torsions, mean, lower, value, radius))
            positions, gradient, slope, way = (t[go] for t in (positions, gradient, slope, way))
            past = [(moved[go], change[go]) for moved, change in past]
        way = way * -(radius / way.norm(dim=1, keepdim=True)).clamp_max(1.0)
        trial = mean + stiff.unwhitened(lower, way)
        at = stiff.response.evaluate(torsions, trial)
        better = (at.energy + at.log_det < value)[:, None]
        past = [*past, (way, stiff.whitened(lower, at.gradient, moving) - slope)][-MEMORY:]
        past = [(torch.where(better, moved, 0.0), torch.where(better, change, 0.0)) for moved, change in past]
        value = torch.where(better[:, 0], at.energy + at.log_det, value)
        positions = torch.where(better[..., None], at.positions, positions)
        mean, gradient = torch.where(better, trial, mean), torch.where(better, at.gradient, gradient)
        radius = torch.where(better, 1.5 * radius, 0.3 * radius)
    best[live], here[live] = mean, positions
    return best, here


def quasi_newton(slope: Float[Tensor, "live stiffs"], past: Sequence[Pair]) -> Float[Tensor, "live stiffs"]:
    """H slope of each row, from the steps before, the oldest first; without any, the slope itself.

    A row in which a step was of no length, or which is not convex along it, does without that step.
    """
    found, known = slope, []
    for moved, change in reversed(past):
        along = (moved * change).sum(1, keepdim=True)
        convex = along > CURVED * moved.square().sum(1, keepdim=True)
        rate = torch.where(convex, 1 / along, 0.0)
        share = rate * (moved * found).sum(1, keepdim=True)
        found = found - share * change
        known.append((rate, share))
    for (moved, change), (rate, share) in zip(past, reversed(known), strict=True):
        found = found + moved * (share - rate * (change * found).sum(1, keepdim=True))
    return found
