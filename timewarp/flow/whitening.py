"""The curvature of the full energy over conformers: what the stiff coordinates are whitened with, and what is constant.

The bonded Hessian at one geometry leaves out the 1-4 and longer-ranged pairs, which stiffen angles and dihedrals by
up to a half. Averaged over thermal conformers (by differences of the energy's gradient) it brings the spread of the
log weight at fixed torsions from 1.0 to 0.5 in a dipeptide of 23 atoms, and lets one Newton step do. What is left of
it without the pairs' own curvature at each conformer hardly changes: its mean is the constant part of `Stiff`.

The conformers have to be at rest: where a slope is left, the curvature of the coordinates themselves comes in with it,
and where they are steep all in the same way it does not average out (in tetrapeptides that alone took the acceptance
of stiff draws from 40 to 4 %). What relaxes them is a chart that was refined before, so that it takes some rounds.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.chart import InternalChart
from timewarp.flow.stiff import Stiff

SOFT, HARD = 0.3, 4.0  # eigenvalues of one conformer's curvature are kept in here, so that no clash rules the mean
AT_REST = 1.0  # slope, kT over a standard deviation
FEWEST = 4  # conformers: where fewer are at rest, the least steep


@torch.no_grad()
def refined(stiff: Stiff, torsions: Float[Tensor, "conformers torsions"], spacing: float = 0.05) -> InternalChart:
    """The chart whose stiff coordinates are N(0, I) for the energy of `stiff.response`, averaged over `torsions`.

    Args:
        stiff: on the chart that is to be refined; its relaxed coordinates become the mean of the new chart.
        torsions: conformers from a walk at the target's temperature.
        spacing: of the finite differences, in standard deviations.
    """
    chart, pairs = stiff.chart, stiff.curvature
    relaxed = stiff.relaxed(torsions)
    steep = stiff.response.slope(torsions, relaxed)[1].norm(dim=1).nan_to_num(torch.inf)
    chosen = (steep < AT_REST).nonzero()[:, 0] if (steep < AT_REST).sum() >= FEWEST else steep.argsort()[:FEWEST]
    torsions, relaxed = torsions[chosen], relaxed[chosen]
    hessians = _hessians(chart, stiff.response, torsions, relaxed, spacing)
    sound = hessians.isfinite().flatten(1).all(1)
    if not sound.any():
        return copy.copy(chart)
    hessians, torsions, relaxed = hessians[sound], torsions[sound], relaxed[sound]
    values, vectors = torch.linalg.eigh(hessians)
    average = ((vectors * values.clamp(SOFT, HARD)[:, None]) @ vectors.mT).mean(0)
    root = chart.root.double()
    rest = root @ hessians @ root
    rest[:, pairs.rows[:, None], pairs.rows] -= pairs(chart.inverse(torsions, relaxed)[0]).double()
    new = copy.copy(chart)
    mean = chart.mean.double() + relaxed.double().median(0).values @ chart.inverse_root.double()
    new.whiten(mean, root @ average @ root, rest.mean(0))
    return new


def _hessians(chart, response, torsions, relaxed, spacing) -> Float[Tensor, "conformers stiffs stiffs"]:
    """d2S/dz2 at the relaxed geometry of each conformer, float64."""
    stiffs = chart.stiffs
    steps = spacing * torch.eye(stiffs, dtype=chart.dtype)
    found = []
    for turn, mean in zip(torsions, relaxed, strict=True):
        _, slope = response.slope(turn.expand(2 * stiffs, -1), mean + torch.cat([steps, -steps]))
        h = (slope[:stiffs] - slope[stiffs:]).double() / (2 * spacing)
        found.append(0.5 * (h + h.T))
    return torch.stack(found)
