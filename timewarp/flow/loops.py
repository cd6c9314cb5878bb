"""The chart's loops over atoms for a batch on a CPU: what `InternalChart.cartesian` and `torques` compute, in one pass.

An atom's place follows from those of three before it, so that torch has to go level by level, with a dozen calls for
each; for small batches their overhead is all that they take. Here a molecule goes through the cache once. The loops
hold no lock, so that threads run side by side, and give no gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.machine import machine_code

LEAST = 1e-12  # of a square that is divided by


def cartesian(
    internal: Float[Tensor, "*batch atoms 3"], refs: Int[Tensor, "atoms 3"], order: Int[Tensor, " atoms"]
) -> Float[Tensor, "*batch atoms 3"]:
    """Positions from (bond, angle, dihedral) of each place: root at the origin, second on x, third in the xy plane.

    Args:
        internal: nm and rad, in placement order.
        refs: places (parent, grandparent, great-grandparent) of each; those of the first three are not looked at.
        order: the atom at each place; positions are in the order of atoms.
    """
    flat = internal.detach().reshape(-1, *internal.shape[-2:]).contiguous()
    found = torch.empty_like(flat)
    _place(flat.numpy(), refs.numpy(), order.numpy(), found.numpy())
    return found.view(internal.shape)


def torques(
    positions: Float[Tensor, "*batch atoms 3"],
    gradient: Float[Tensor, "*batch atoms 3"],
    refs: Int[Tensor, "atoms 3"],
    leads: Int[Tensor, " atoms"],
    order: Int[Tensor, " atoms"],
) -> Float[Tensor, "*batch atoms 3"]:
    """df/d(bond, angle, dihedral) of each place, from df/dx; see `timewarp.flow.torque`.

    Args:
        positions: in the order of atoms.
        gradient: df/dx, likewise.
        refs: places of parent, grandparent and great-grandparent; -1 for none.
        leads: the place whose dihedral leads that of each, -1 for none.
        order: the atom at each place.
    """
    shape = positions.shape
    x, g = (t.detach().reshape(-1, *shape[-2:]).contiguous() for t in (positions, gradient))
    found = torch.empty_like(x)
    _turn(x.numpy(), g.numpy(), refs.numpy(), leads.numpy(), order.numpy(), found.numpy())
    return found.view(shape)


@machine_code("3x", "2i", "1i", "3x")
def _place(internal, refs, order, found):
    count, atoms, _ = internal.shape
    x = np.zeros((atoms, 3), dtype=internal.dtype)
    for b in range(count):
        q = internal[b]
        x[1, 0] = q[1, 0]
        x[2, 0] = q[1, 0] - q[2, 0] * np.cos(q[2, 1])
        x[2, 1] = q[2, 0] * np.sin(q[2, 1])
        for k in range(3, atoms):
            p, g, f = refs[k]
            a0, a1, a2 = x[p, 0] - x[g, 0], x[p, 1] - x[g, 1], x[p, 2] - x[g, 2]  # the bond, along it
            s = 1 / np.sqrt(a0 * a0 + a1 * a1 + a2 * a2)
            a0, a1, a2 = a0 * s, a1 * s, a2 * s
            b0, b1, b2 = x[g, 0] - x[f, 0], x[g, 1] - x[f, 1], x[g, 2] - x[f, 2]
            n0, n1, n2 = b1 * a2 - b2 * a1, b2 * a0 - b0 * a2, b0 * a1 - b1 * a0  # out of the plane
            s = 1 / np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
            n0, n1, n2 = n0 * s, n1 * s, n2 * s
            m0, m1, m2 = n1 * a2 - n2 * a1, n2 * a0 - n0 * a2, n0 * a1 - n1 * a0
            across = q[k, 0] * np.sin(q[k, 1])
            u, v, w = -q[k, 0] * np.cos(q[k, 1]), across * np.cos(q[k, 2]), across * np.sin(q[k, 2])
            x[k, 0] = x[p, 0] + u * a0 + v * m0 + w * n0
            x[k, 1] = x[p, 1] + u * a1 + v * m1 + w * n1
            x[k, 2] = x[p, 2] + u * a2 + v * m2 + w * n2
        for k in range(atoms):
            found[b, order[k]] = x[k]


@machine_code("3x", "3x", "2i", "1i", "1i", "3x")
def _turn(positions, gradient, refs, leads, order, found):
    count, atoms, _ = positions.shape
    x = np.empty((atoms, 3), dtype=positions.dtype)
    body = np.empty((atoms, 6), dtype=positions.dtype)  # force and torque on what a bond or an angle moves
    led = np.empty((atoms, 6), dtype=positions.dtype)  # and a dihedral
    for b in range(count):
        for k in range(atoms):
            a = order[k]
            x0, x1, x2 = positions[b, a, 0], positions[b, a, 1], positions[b, a, 2]
            g0, g1, g2 = gradient[b, a, 0], gradient[b, a, 1], gradient[b, a, 2]
            x[k, 0], x[k, 1], x[k, 2] = x0, x1, x2
            body[k, 0], body[k, 1], body[k, 2] = g0, g1, g2
            body[k, 3], body[k, 4], body[k, 5] = x1 * g2 - x2 * g1, x2 * g0 - x0 * g2, x0 * g1 - x1 * g0
        for k in range(atoms - 1, 0, -1):
            for i in range(6):
                body[refs[k, 0], i] += body[k, i]
        led[:] = body
        for k in range(3, atoms):
            if leads[k] >= 0:
                for i in range(6):
                    led[leads[k], i] += body[k, i]
        for k in range(atoms):
            p, g = max(refs[k, 0], 0), max(refs[k, 1], 0)
            x0, x1, x2 = x[p, 0], x[p, 1], x[p, 2]
            b0, b1, b2 = x[k, 0] - x0, x[k, 1] - x1, x[k, 2] - x2
            a0, a1, a2 = x0 - x[g, 0], x1 - x[g, 1], x2 - x[g, 2]
            n0, n1, n2 = b1 * a2 - b2 * a1, b2 * a0 - b0 * a2, b0 * a1 - b1 * a0
            f0, f1, f2 = body[k, 0], body[k, 1], body[k, 2]
            along = b0 * f0 + b1 * f1 + b2 * f2
            t0, t1, t2 = body[k, 3] - x1 * f2 + x2 * f1, body[k, 4] - x2 * f0 + x0 * f2, body[k, 5] - x0 * f1 + x1 * f0
            bend = n0 * t0 + n1 * t1 + n2 * t2
            f0, f1, f2 = led[k, 0], led[k, 1], led[k, 2]
            t0, t1, t2 = led[k, 3] - x1 * f2 + x2 * f1, led[k, 4] - x2 * f0 + x0 * f2, led[k, 5] - x0 * f1 + x1 * f0
            turn = a0 * t0 + a1 * t1 + a2 * t2
            found[b, k, 0] = along / np.sqrt(max(b0 * b0 + b1 * b1 + b2 * b2, LEAST))
            found[b, k, 1] = bend / np.sqrt(max(n0 * n0 + n1 * n1 + n2 * n2, LEAST))
            found[b, k, 2] = turn / np.sqrt(max(a0 * a0 + a1 * a1 + a2 * a2, LEAST))
