"""Maps over two torsions (CMAP): an energy on a periodic grid, and the smooth surface through it.

ff19SB and CHARMM correct each residue's phi and psi with such a map. Between its points it is the bicubic spline:
one cubic in each angle a cell, with continuous second derivatives along either angle.

| symbol | variable |
|---|---|
| U at the grid's points | grid |
| dU/du, dU/dv, d2U/du dv there (u, v: angles in cells) | du, dv, both |
| c_pq, with U = sum_pq c_pq u^p v^q in a cell | coefficients |
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.energy.bonded import AtomsFirst, Dihedrals

# rows: powers of t; columns: value at 0, value at 1, slope at 0, slope at 1
_HERMITE = [[1, 0, 0, 0], [0, 0, 1, 0], [-3, 3, -2, -1], [2, -2, 1, 1]]


def coefficients(grid: Float[Tensor, "maps size size"]) -> Float[Tensor, "maps size size 4 4"]:
    """c_pq of each cell of each map, in the unit of `grid`.

    A periodic cubic spline's slopes d at its points f solve d[i-1] + 4 d[i] + d[i+1] = 3 (f[i+1] - f[i-1]).
    """
    size = grid.shape[-1]
    if not len(grid):
        return grid.new_zeros(0, size, size, 4, 4)
    one = torch.eye(size, dtype=grid.dtype, device=grid.device)
    up, down = one.roll(1, 1), one.roll(-1, 1)  # f[i+1], f[i-1]
    slope = torch.linalg.solve(up + 4 * one + down, 3 * (up - down))
    du, dv = slope @ grid, grid @ slope.T
    both = slope @ grid @ slope.T

    def corners(f):
        """[maps, size, size, 2, 2]: the values at the four corners of each cell."""
        return torch.stack([torch.stack([f.roll((-p, -q), (1, 2)) for q in (0, 1)], -1) for p in (0, 1)], -2)

    known = torch.cat([torch.cat([corners(grid), corners(dv)], -1), torch.cat([corners(du), corners(both)], -1)], -2)
    hermite = torch.tensor(_HERMITE, dtype=grid.dtype, device=grid.device)
    return hermite @ known @ hermite.T


def maps(
    x: AtomsFirst,
    index: Int[Tensor, "mapped 8"],
    kind: Int[Tensor, " mapped"],
    table: Float[Tensor, "maps size size 4 4"],
    gradient: AtomsFirst | None,
) -> Float[Tensor, " batch"]:
    """Energy (kJ/mol) of each configuration; its gradient is added to `gradient`.

    Args:
        x: nm.
        index: atoms of the first and of the second torsion.
        kind: which map.
        table: of `coefficients`.
    """
    size = table.shape[1]
    first, second = Dihedrals(x, index[:, :4]), Dihedrals(x, index[:, 4:])
    cells, parts = [], []
    for angle in (first.angle, second.angle):
        place = torch.remainder(angle, 2 * math.pi) * (size / (2 * math.pi))
        cell = place.floor().clamp(0, size - 1)
        parts.append(place - cell)  # not a number where the angle is not, and then so is the energy
        cells.append(cell.nan_to_num().long())
    c = table.flatten(0, 2)[(kind[:, None] * size + cells[0]) * size + cells[1]]
    v = parts[1][..., None]
    along = _cubic([c[..., q] for q in range(4)], v).unbind(-1)  # one number for each power of u
    energy = _cubic(along, parts[0]).sum(0)
    if gradient is None:
        return energy
    across = (c[..., 1] + v * (2 * c[..., 2] + 3 * v * c[..., 3])).unbind(-1)
    per_cell = size / (2 * math.pi)
    first.add(per_cell * (along[1] + parts[0] * (2 * along[2] + 3 * parts[0] * along[3])), gradient)
    second.add(per_cell * _cubic(across, parts[0]), gradient)
    return energy


def _cubic(c, t):
    return c[0] + t * (c[1] + t * (c[2] + t * c[3]))
