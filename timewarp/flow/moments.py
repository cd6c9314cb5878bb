"""The Hessian of the pairs' energy in bends and dihedrals, one configuration after another, by moments of bodies.

A pair counts for two coordinates where one of its atoms is moved by one of them alone. What an atom l and a whole body
make of a coordinate that moves the body depends on a few sums over the body, since velocities are linear in positions;
sums over bodies follow from those over the bodies beyond them. So the cost grows with the square of the atoms, where
the product of rates and second derivatives grows with the cube.

With u_j = (a, m) of a coordinate j that moves atom k by a x x_k + m, d = x_l - x_k, f and w as in `Curvature`:

| symbol | variable |
|---|---|
| sum over k of w, w x_k, w x_k x_k^T (6), f, f x_k, of each l | moment |
| c_0 + c . x_k = d . (a x x_k + m), with c = x_l x a - m and c_0 = m . x_l | c |
| P_0 = sum w (c_0 + c . x_k), P_1 = sum w (c_0 + c . x_k) x_k | p |
| D = a x sum f x_k + m sum f - P_1 | v |
| (x_l x D, D + P_0 x_l), summed over the l of a body | pull |
| d2E/dq_i dq_j = u_i . (pull of all - pull of i's body) if i moves j's axis, else -u_i . (that of i's body) | found |

In the first case the change of j's axis with q_i is in it: v_ki . v_kj - d . (a_i x v_kj) = v_li . v_kj.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from timewarp.flow.chart import DIHEDRAL
from timewarp.flow.pair_tables import CLOSEST
from timewarp.flow.swings import Swings, swung
from timewarp.machine import machine_code

MOMENTS = 14
LEAST = 1e-12  # of a length that is divided by


def hessian(
    positions: Float[Tensor, "batch places 3"],
    tables: Float[Tensor, "5 places places"],
    refs: Int[Tensor, "places 3"],
    rows: Int[Tensor, "2 rows"],
    roots: Int[Tensor, "rows most"],
    before: Bool[Tensor, "rows rows"],
    swings: Swings,
) -> Float[Tensor, "batch rows rows"]:
    """d2E/dq dq, zeros where it is not finite.

    Args:
        positions: in placement order, nm.
        tables: sigma^6, 4 epsilon, q q, q q of the solvent and B B of pairs.
        refs: places (parent, grandparent, great-grandparent), -1 for none.
        rows: place and kind (1 of a bend, 2 of a dihedral) of each coordinate.
        roots: see `roots_of`.
        before: whether the first of two moves the axis of the second; bodies of two that are so neither way have to
            be apart.
        swings: the rings whose amplitudes are the last rows.
    """
    x = positions.detach().contiguous()
    found = x.new_zeros(len(x), len(roots), len(roots))
    here = [t.numpy() for t in (x, refs, roots)]
    kept = len(x) if len(swings.amplitudes) else min(1, len(x))  # what the swings need of each configuration
    pairs = [np.zeros((kept, *shape)) for shape in (2 * x.shape[1:2], 2 * x.shape[1:2], (len(roots), 6))]
    _hessian(
        here[0],
        tables.numpy(),
        here[1],
        rows.numpy(),
        here[2],
        before.numpy(),
        swings.amplitudes.numpy(),
        *pairs,
        found.numpy(),
    )
    if len(swings.amplitudes):
        swung(*here, *pairs, *swings.arrays(x), found.numpy())
    return found


def roots_of(leads: Int[Tensor, " places"], rows: Int[Tensor, "2 rows"]) -> Int[Tensor, "rows most"]:
    """The places at which the parts of each body begin: its own, and those that follow its dihedral; then -1.

    Args:
        leads: the place whose dihedral leads that of each, -1 for none.
        rows: place and kind of each coordinate.
    """
    each = [
        [place, *((leads == place).nonzero()[:, 0].tolist() if kind == DIHEDRAL else ())]
        for place, kind in rows.T.tolist()
    ]
    most = max((len(one) for one in each), default=1)
    return torch.tensor([one + [-1] * (most - len(one)) for one in each], dtype=torch.long).view(len(each), most)


@machine_code("3x", "3x", "2i", "2i", "2i", "2b", "1i", "3d", "3d", "3d", "3x")
def _hessian(positions, tables, refs, rows, roots, before, amplitudes, all_bends, all_pushes, all_u, found):
    batch, atoms, _ = positions.shape
    count, most = roots.shape
    plain = count - len(amplitudes)
    x = np.empty((3, atoms))
    moments = np.empty((atoms, MOMENTS, atoms))
    several = np.empty((MOMENTS, atoms))
    across = np.empty((6, atoms))
    pull = np.empty((atoms, 6))
    for b in range(batch):
        at = b if plain < count else 0
        bends, pushes, u = all_bends[at], all_pushes[at], all_u[at]
        for k in range(atoms):
            for i in range(3):
                x[i, k] = positions[b, k, i]
        for k in range(atoms):
            for q in range(k):
                d0, d1, d2 = x[0, q] - x[0, k], x[1, q] - x[1, k], x[2, q] - x[2, k]
                r2 = max(d0 * d0 + d1 * d1 + d2 * d2, CLOSEST)
                inverse = 1 / r2
                s6 = tables[0, k, q] * inverse * inverse * inverse
                attraction = tables[1, k, q] * s6
                repulsion = attraction * s6
                coulomb = tables[2, k, q] * np.sqrt(inverse)
                reach = tables[4, k, q]
                decay = np.exp(-0.25 * r2 / reach)
                inner = 1 / (r2 + reach * decay)
                screen = tables[3, k, q] * inner * np.sqrt(inner)
                slope = 1 - 0.25 * decay
                push = (6 * attraction - 12 * repulsion - coulomb) * inverse + screen * slope
                rise = (156 * repulsion - 42 * attraction + 2 * coulomb) * inverse
                rise += screen * (slope + r2 * decay * (0.125 / reach) - 3 * r2 * inner * slope * slope)
                pushes[k, q] = pushes[q, k] = push
                bends[k, q] = bends[q, k] = (rise - push) * inverse
        # moments of single atoms, then of the bodies that bends move
        for k in range(atoms):
            x0, x1, x2 = x[0, k], x[1, k], x[2, k]
            x00, x11, x22, x01, x02, x12 = x0 * x0, x1 * x1, x2 * x2, x0 * x1, x0 * x2, x1 * x2
            for q in range(atoms):
                w, f = bends[k, q], pushes[k, q]
                moments[k, 0, q] = w
                moments[k, 1, q] = w * x0
                moments[k, 2, q] = w * x1
                moments[k, 3, q] = w * x2
                moments[k, 4, q] = w * x00
                moments[k, 5, q] = w * x11
                moments[k, 6, q] = w * x22
                moments[k, 7, q] = w * x01
                moments[k, 8, q] = w * x02
                moments[k, 9, q] = w * x12
                moments[k, 10, q] = f
                moments[k, 11, q] = f * x0
                moments[k, 12, q] = f * x1
                moments[k, 13, q] = f * x2
        for k in range(atoms - 1, 0, -1):
            into, part = moments[refs[k, 0]], moments[k]
            for i in range(MOMENTS):
                for q in range(atoms):
                    into[i, q] += part[i, q]
        for j in range(count):
            place = rows[0, j]
            p, g = refs[place, 0], refs[place, 1]
            x0, x1, x2 = x[0, p], x[1, p], x[2, p]
            a0, a1, a2 = x0 - x[0, g], x1 - x[1, g], x2 - x[2, g]
            if rows[1, j] != DIHEDRAL:
                b0, b1, b2 = x[0, place] - x0, x[1, place] - x1, x[2, place] - x2
                a0, a1, a2 = b1 * a2 - b2 * a1, b2 * a0 - b0 * a2, b0 * a1 - b1 * a0
            s = 1 / max(np.sqrt(a0 * a0 + a1 * a1 + a2 * a2), LEAST)
            a0, a1, a2 = a0 * s, a1 * s, a2 * s
            u[j, 0], u[j, 1], u[j, 2] = a0, a1, a2
            u[j, 3], u[j, 4], u[j, 5] = x1 * a2 - x2 * a1, x2 * a0 - x0 * a2, x0 * a1 - x1 * a0
        for j in range(plain):
            moment = moments[roots[j, 0]]
            if most > 1 and roots[j, 1] >= 0:
                several[:] = moment
                for n in range(1, most):
                    if roots[j, n] >= 0:
                        part = moments[roots[j, n]]
                        for i in range(MOMENTS):
                            for q in range(atoms):
                                several[i, q] += part[i, q]
                moment = several
            a0, a1, a2, m0, m1, m2 = u[j]
            for q in range(atoms):
                x0, x1, x2 = x[0, q], x[1, q], x[2, q]
                c0, c1, c2 = x1 * a2 - x2 * a1 - m0, x2 * a0 - x0 * a2 - m1, x0 * a1 - x1 * a0 - m2
                first = m0 * x0 + m1 * x1 + m2 * x2
                n0, n1, n2 = moment[1, q], moment[2, q], moment[3, q]
                p = first * moment[0, q] + c0 * n0 + c1 * n1 + c2 * n2
                f, f0, f1, f2 = moment[10, q], moment[11, q], moment[12, q], moment[13, q]
                v0 = a1 * f2 - a2 * f1 + m0 * f - first * n0
                v1 = a2 * f0 - a0 * f2 + m1 * f - first * n1
                v2 = a0 * f1 - a1 * f0 + m2 * f - first * n2
                v0 -= moment[4, q] * c0 + moment[7, q] * c1 + moment[8, q] * c2
                v1 -= moment[7, q] * c0 + moment[5, q] * c1 + moment[9, q] * c2
                v2 -= moment[8, q] * c0 + moment[9, q] * c1 + moment[6, q] * c2
                across[0, q] = x1 * v2 - x2 * v1
                across[1, q] = x2 * v0 - x0 * v2
                across[2, q] = x0 * v1 - x1 * v0
                across[3, q] = v0 + p * x0
                across[4, q] = v1 + p * x1
                across[5, q] = v2 + p * x2
            for q in range(atoms):
                for c in range(6):
                    pull[q, c] = across[c, q]
            for k in range(atoms - 1, 0, -1):
                over = refs[k, 0]
                for c in range(6):
                    pull[over, c] += pull[k, c]
            for i in range(plain):
                outer = before[i, j]
                if not (outer or (i < j and not before[j, i])):
                    continue
                value = 0.0
                if outer:
                    for c in range(6):
                        value += u[i, c] * pull[0, c]
                for n in range(most):
                    here = roots[i, n]
                    if here >= 0:
                        for c in range(6):
                            value -= u[i, c] * pull[here, c]
                found[b, i, j] = found[b, j, i] = value
        if plain == count and not np.isfinite(found[b]).all():
            found[b] = 0.0
