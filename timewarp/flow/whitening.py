"""The curvature of the full energy over conformers: what the stiff coordinates are whitened with, and what is constant.

The bonded Hessian at one geometry leaves out the 1-4 and longer-ranged pairs, which stiffen angles and dihedrals by
up to a half. Averaged over thermal conformers (by differences of the energy's gradient) it brings the spread of the
log weight at fixed torsions from 1.0 to 0.5 in a dipeptide of 23 atoms, and lets one Newton step do. What is left of
it without the pairs' own curvature at each conformer hardly changes: its median is the constant part of `Stiff`.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.chart import InternalChart
from timewarp.flow.curvature import Curvature
from timewarp.flow.response import Response

SOFT, HARD = 0.3, 4.0  # eigenvalues of one conformer's curvature are kept in here, so that no clash rules the mean


@torch.no_grad()
def refined(
    chart: InternalChart,
    response: Response,
    curvature: Curvature,
    torsions: Float[Tensor, "conformers torsions"],
    spacing: float = 0.05,
) -> InternalChart:
    """The chart whose stiff coordinates are N(0, I) for the energy of `response`, averaged over `torsions`.

    Args:
        chart: whitened with the bonded Hessian.
        response: on that chart; its relaxed coordinates become the mean of the new chart.
        curvature: of the pairs.
        torsions: conformers from a walk at the target's temperature.
        spacing: of the finite differences, in standard deviations.
    """
    relaxed = response(torsions)
    hessians = _hessians(chart, response, torsions, relaxed, spacing)
    sound = hessians.isfinite().flatten(1).all(1)
    if not sound.any():
        return copy.copy(chart)
    hessians, torsions, middle = hessians[sound], torsions[sound], relaxed.double().median(0).values
    values, vectors = torch.linalg.eigh(hessians)
    average = ((vectors * values.clamp(SOFT, HARD)[:, None]) @ vectors.mT).mean(0)
    root = chart.root.double()
    rest = root @ hessians @ root
    pairs = curvature(chart.inverse(torsions, relaxed[sound])[0]).double()
    rest[:, curvature.rows[:, None], curvature.rows] -= pairs
    new = copy.copy(chart)
    mean = chart.mean.double() + middle @ chart.inverse_root.double()
    new.whiten(mean, root @ average @ root, rest.median(0).values)
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
