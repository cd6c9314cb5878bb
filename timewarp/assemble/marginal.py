"""The density of torsions that the energy asks for: the stiff coordinates integrated out.

What `Stiff` carries noise to is nearly the law of the stiff coordinates, so that a few draws give the integral, and
without any network: it is what a flow's ln p(tau) can be compared with at any torsions, thermal or not.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.assemble.peptide import Peptide
from timewarp.flow.stiff import standard_normal
from timewarp.state import Positions

DRAWS = 4
LOWEST = -1e6  # what a log weight that is not finite counts as


class Marginal(NamedTuple):
    """Of some torsions.

    Attributes:
        positions: nm, in the chart's frame: one configuration with these torsions.
        target: -U/kT - ln |d(tau, e)/dx| - ln N(e) there: what ln p(tau) would have to be, up to a constant, were the
            law of the stiff coordinates right; -inf in a clash.
        free: ln of the mean of exp(target) over draws of e: the same for the true law, up to noise.
    """

    positions: Positions
    target: Float[Tensor, " count"]
    free: Float[Tensor, " count"]


@torch.no_grad()
def marginal(
    peptide: Peptide,
    torsions: Float[Tensor, "count torsions"],
    rng: torch.Generator,
    stiff: Float[Tensor, "count stiffs"] | None = None,
) -> Marginal:
    """What there is at these torsions, with `stiff` coordinates or some that are drawn."""
    basin, shape = peptide.stiff.at(torsions), (len(torsions), peptide.chart.stiffs)
    noises = [torch.randn(shape, generator=rng, dtype=torsions.dtype) for _ in range(DRAWS)]
    if stiff is not None:  # whose weight is not that of a draw
        noises.insert(0, peptide.stiff.pull(basin, stiff)[0])
    found = []
    for noise in noises:
        z, stretch = peptide.stiff.push(basin, noise)
        placed, log_det = peptide.chart.inverse(torsions, z)
        target = -peptide.potential(placed).double() - log_det + stretch - standard_normal(noise)
        found.append((placed, target.nan_to_num(-torch.inf, -torch.inf, -torch.inf)))
    free = torch.stack([target for _, target in found[-DRAWS:]]).clamp_min(LOWEST).logsumexp(0) - log(DRAWS)
    return Marginal(*found[0], free)
