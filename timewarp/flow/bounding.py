"""The quadratic form about a relaxed geometry, kept between bounds, and lopsided where it was out of them.

Eigenvalues are those relative to the mean curvature. Below the bounds there is next to no form at all, and above them
it is a wall's, which reaches less far than a standard deviation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.basin import HIGH, LOW, Basin, in_bounds

if TYPE_CHECKING:
    from timewarp.flow.stiff import Stiff

STEEP = 3.0  # eigenvalue from which on a direction gets two widths, as one below `LOW` does
MODES = 4  # directions of a geometry that do
SWING = 4.4  # 1 / standard deviation of a ring's amplitude, at most: what turns with it is not as stiff as it seems
PROBE = 1.4  # where the energy is asked for these, in standard deviations of the mean curvature


@torch.no_grad()
def bounded(
    stiff: Stiff,
    torsions: Float[Tensor, "count torsions"],
    mean: Float[Tensor, "count stiffs"],
    curvature: Float[Tensor, "count soft soft"],
) -> Basin:
    """The basin about `mean`: L of P = `curvature` with its eigenvalues in bounds; two widths where they were not.

    A direction in which P is all but flat leads into walls; one that a contact makes steep is steep on one side
    and near the bottom alone. Of up to `MODES` such directions the energy on both sides tells the widths.
    """
    lower, failed = torch.linalg.cholesky_ex(curvature)
    within = [torch.linalg.cholesky_ex(m)[1] for m in (curvature - LOW * stiff.usual, STEEP * stiff.usual - curvature)]
    out = (failed + within[0] + within[1] != 0) & curvature.isfinite().flatten(1).all(1)
    lower[~(lower.diagonal(dim1=-2, dim2=-1).isfinite().all(-1) & (failed == 0))] = stiff.likely
    basin = _even(torsions, mean, lower)
    if out.any():
        relative = stiff.unlikely @ curvature[out] @ stiff.unlikely.T
        found, vectors = torch.linalg.eigh(0.5 * (relative + relative.mT))
        values, turned = in_bounds(found), stiff.likely @ vectors
        lower[out] = torch.linalg.cholesky((turned * values[:, None]) @ turned.mT)
        _skew(stiff, basin, out.nonzero()[:, 0], found, values, vectors)
    for row in range(stiff.softs - stiff.leads, stiff.softs):
        lower[:, row, row].clamp_(max=SWING)
    return basin


def _skew(stiff: Stiff, basin: Basin, rows: Tensor, found: Tensor, values: Tensor, vectors: Tensor) -> None:
    """Fill in the axes and widths of the `rows` of a basin, from the energy at `PROBE` on both sides."""
    beyond = torch.where(found > STEEP, (found / STEEP).log(), (LOW - found).clamp_min(0.0))
    size, mode = beyond.topk(min(MODES, beyond.shape[1]), dim=1)
    row, slot = (size > 0).nonzero().unbind(1)
    mode, at = mode[row, slot], rows[row]
    pick = vectors[row, :, mode]  # in the coordinates that the mean curvature whitens
    soft = torch.linalg.solve_triangular(stiff.likely.mT, pick[..., None], upper=True)[..., 0]
    bonds = torch.linalg.solve_triangular(stiff.root.T, (-soft @ stiff.across).T, upper=True).T
    delta = soft.new_empty(len(soft), stiff.chart.stiffs)
    delta[:, stiff.bonds], delta[:, stiff.soft] = bonds, PROBE * soft
    step = delta @ stiff.chart.root
    mean, torsions = basin.mean[at], basin.torsions[at]
    rise = [stiff.response.value(torsions, mean + side * step) for side in (-1, 0, 1)]
    curvature = torch.stack([2 / PROBE**2 * (rise[k] - rise[1]) for k in (0, 2)], -1)
    # a wall is as steep as it begins: how it goes on is too far out
    there = found[row, mode][:, None].clamp_min(HIGH)
    curvature = in_bounds(torch.minimum(curvature.nan_to_num(torch.inf, torch.inf, torch.inf), there))
    axis = (basin.lower[at].mT @ soft[..., None])[..., 0]
    basin.axes[at, slot] = axis / axis.norm(dim=1, keepdim=True)
    basin.widths[at, slot] = (values[row, mode][:, None] / curvature).sqrt().to(axis.dtype)


def _even(torsions: Tensor, mean: Tensor, lower: Tensor) -> Basin:
    """A basin that is nowhere lopsided."""
    axes = lower.new_zeros(len(lower), MODES, lower.shape[-1])
    return Basin(torsions, mean, lower, axes, lower.new_ones(len(lower), MODES, 2))
