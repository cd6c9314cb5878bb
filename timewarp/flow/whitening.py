"""The curvature of the full energy over conformers: what the stiff coordinates are whitened with, and what is constant.

The bonded Hessian at one geometry leaves out the 1-4 and longer-ranged pairs, which stiffen angles and dihedrals by
up to a half. Averaged over thermal conformers (by differences of the energy's gradient) it brings the spread of the
log weight at fixed torsions from 1.0 to 0.5 in a dipeptide of 23 atoms, and lets one Newton step do. What is left of
it without the pairs' own curvature at each conformer hardly changes: its mean is the constant part of `Stiff`. So a
few conformers say what that is, and the pairs' curvature of the others, which is known in closed form, is added to it.

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
NEAR = 1e-3  # kT: where a Newton step gains less than half of this, a conformer is at rest


@torch.no_grad()
def refined(
    stiff: Stiff,
    torsions: Float[Tensor, "conformers torsions"],
    differenced: int | None = None,
    spacing: float = 0.1,
) -> InternalChart:
    """The chart whose stiff coordinates are N(0, I) for the energy of `stiff.response`, averaged over `torsions`.

    Args:
        stiff: on the chart that is to be refined; its relaxed coordinates become the mean of the new chart.
        torsions: conformers from a walk at the target's temperature.
        differenced: of so many conformers, all of them if not given, the curvature is taken by differences; it costs
            a gradient for each stiff coordinate.
        spacing: of the finite differences, in standard deviations.
    """
    chart, pairs = stiff.chart, stiff.curvature
    relaxed = stiff.relaxed(torsions, NEAR)
    slope = stiff.response.slope(torsions, relaxed)[1]
    steep = slope.norm(dim=1).nan_to_num(torch.inf)
    chosen = (steep < AT_REST).nonzero()[:, 0] if (steep < AT_REST).sum() >= FEWEST else steep.argsort()[:FEWEST]
    torsions, relaxed, slope = torsions[chosen], relaxed[chosen], slope[chosen]
    root, inverse, soft = chart.root.double(), chart.inverse_root.double(), pairs.rows
    known = pairs(chart.inverse(torsions, relaxed)[0]).double()
    few = len(torsions) if differenced is None else differenced
    rest = root @ _hessians(chart, stiff.response, torsions[:few], relaxed[:few], slope[:few], spacing) @ root
    rest[:, soft[:, None], soft] -= known[:few]
    rest = rest[rest.isfinite().flatten(1).all(1)]
    if not len(rest):
        return copy.copy(chart)
    constant = rest.mean(0)
    whole = constant.repeat(len(known), 1, 1)
    whole[:, soft[:, None], soft] += known
    values, vectors = torch.linalg.eigh(inverse @ whole @ inverse)
    average = ((vectors * values.clamp(SOFT, HARD)[:, None]) @ vectors.mT).mean(0)
    new = copy.copy(chart)
    mean = chart.mean.double() + relaxed.double().median(0).values @ inverse
    new.whiten(mean, root @ average @ root, constant)
    return new


def _hessians(chart, response, torsions, relaxed, slope, spacing) -> Float[Tensor, "conformers stiffs stiffs"]:
    """d2S/dz2 at the relaxed geometry of each conformer, where dS/dz is `slope`; float64.

    Differences to one side, every other coordinate to the other, and both turned round from one conformer to the next:
    what is odd in the step averages out.
    """
    side = spacing * (1 - 2 * (torch.arange(chart.stiffs) % 2)).to(chart.dtype)
    found = []
    for turn, mean, here in zip(torsions, relaxed, slope, strict=True):
        _, there = response.slope(turn.expand(chart.stiffs, -1), mean + torch.diag(side))
        h = (there - here).double() / side[:, None].double()
        found.append(0.5 * (h + h.T))
        side = -side
    return torch.stack(found)
