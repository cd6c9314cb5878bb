"""What the amplitudes of rings add to the Hessian of `moments`: their own rows, and the terms that close the rings.

An amplitude turns two bodies, about two neighbouring bonds of its ring, so that sums over bodies do not tell its row.
It is one row for each ring: the second derivatives are multiplied with its velocities, atom by atom, and the product is
summed over the bodies of the other coordinates.

| symbol | variable |
|---|---|
| v_k of the amplitude: weight_0 (a_0 x x_k + m_0) of the phase's body + weight_1 (a_1 x x_k + m_1) of its own | rate |
| y_k = sum over l of w d (d . (v_k - v_l)) + f (v_k - v_l), d = x_l - x_k | y |
| (x_k x y_k, y_k), summed over the k of a body | pull |
| d2E/dq_i da = u_i . (pull of i's body) | found |
| s of the closing terms, dJ = grad s . v of each coordinate, + J J^T | terms |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from timewarp.flow.closing import Closing
from timewarp.machine import machine_code

LEAST = 1e-12  # of a length that is divided by


@dataclass(frozen=True)
class Swings:
    """The rings of a molecule, for `moments`.

    Attributes:
        rings: their closing terms.
        amplitudes: rows of the Hessian, one a ring.
        phases: places.
        turned: the atoms that each phase turns.
        body: the atoms that each row of the Hessian turns, an amplitude by its own dihedral.
        atoms: places of the closing terms' atoms.
    """

    rings: tuple[Closing, ...]
    amplitudes: Int[Tensor, " rings"]
    phases: Int[Tensor, " rings"]
    turned: Bool[Tensor, "rings places"]
    body: Bool[Tensor, "rows places"]
    atoms: Int[Tensor, "terms 3"]

    @classmethod
    def of(cls, rings: Sequence[Closing], body: Bool[Tensor, "rows places"]) -> Swings:
        """These rings; none are none."""
        none = torch.zeros(0, dtype=torch.long)
        return cls(
            tuple(rings),
            torch.tensor([ring.row for ring in rings], dtype=torch.long),
            torch.stack([ring.places[0] for ring in rings]) if rings else none,
            torch.stack([ring.body > 0 for ring in rings]) if rings else body[:0],
            body,
            torch.cat([ring.atoms for ring in rings]) if rings else none.view(0, 3),
        )

    def to(self, device: torch.device | str) -> Swings:
        """The same with its tensors on a device."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        rings = tuple(ring.to(device) for ring in parts.pop("rings"))
        return Swings(rings, **{name: value.to(device) for name, value in parts.items()})

    def arrays(self, x: Float[Tensor, "batch places 3"]) -> tuple[NDArray, ...]:
        """What `_hessian` takes of them: the attributes, weights [batch, rings, 2] and slopes [batch, terms, 9]."""
        weights, slopes = x.new_zeros(len(x), 0, 2), x.new_zeros(len(x), 0, 9)
        if self.rings:
            weights = torch.stack([ring.weights(x) for ring in self.rings], 1)
            slopes = torch.cat([ring.slopes(x) for ring in self.rings], 1).flatten(2)
        parts = (self.amplitudes, self.phases, self.turned, self.body, self.atoms, weights.double(), slopes.double())
        return tuple(part.contiguous().numpy() for part in parts)


@machine_code("3x", "2i", "2i", "3d", "3d", "3d", "1i", "1i", "2b", "2b", "2i", "3d", "3d", "3x")
def swung(
    positions, refs, roots, all_bends, all_pushes, all_u,
    amplitudes, phases, turned, body, atoms, all_weights, all_slopes, all_found,
):  # fmt: skip
    """The rows of the amplitudes in the Hessians that `moments` began, and the closing terms, which are added.

    `all_bends` and `all_pushes` are w and f of all pairs, `all_u` (a, m) of each row, see `moments`; a Hessian that is
    not finite is zeroed. It is no part of that loop, as a loop that is kept on disk would not hear of changes here.
    """
    batch, places, _ = positions.shape
    rings, rows = len(amplitudes), all_u.shape[1]
    x, y = np.empty((3, places)), np.empty((places, 6))
    slope = np.empty(rows)
    for b in range(batch):
        bends, pushes, u, found = all_bends[b], all_pushes[b], all_u[b], all_found[b]
        weights, slopes = all_weights[b], all_slopes[b]
        for k in range(places):
            for i in range(3):
                x[i, k] = positions[b, k, i]
        rate = np.zeros((rings, places, 3))
        for r in range(rings):
            p, g = refs[phases[r], 0], refs[phases[r], 1]
            x0, x1, x2 = x[0, p], x[1, p], x[2, p]
            a0, a1, a2 = x0 - x[0, g], x1 - x[1, g], x2 - x[2, g]
            s = weights[r, 0] / max(np.sqrt(a0 * a0 + a1 * a1 + a2 * a2), LEAST)
            a0, a1, a2 = a0 * s, a1 * s, a2 * s
            own, w = amplitudes[r], weights[r, 1]
            b0, b1, b2, m0, m1, m2 = u[own]
            for k in range(places):
                if turned[r, k]:
                    d0, d1, d2 = x[0, k] - x0, x[1, k] - x1, x[2, k] - x2
                    rate[r, k, 0] += a1 * d2 - a2 * d1
                    rate[r, k, 1] += a2 * d0 - a0 * d2
                    rate[r, k, 2] += a0 * d1 - a1 * d0
                if body[own, k]:
                    rate[r, k, 0] += w * (b1 * x[2, k] - b2 * x[1, k] + m0)
                    rate[r, k, 1] += w * (b2 * x[0, k] - b0 * x[2, k] + m1)
                    rate[r, k, 2] += w * (b0 * x[1, k] - b1 * x[0, k] + m2)
        for r in range(rings):
            own = amplitudes[r]
            for k in range(places):
                y0, y1, y2 = 0.0, 0.0, 0.0
                for q in range(places):
                    d0, d1, d2 = x[0, q] - x[0, k], x[1, q] - x[1, k], x[2, q] - x[2, k]
                    v0, v1, v2 = (
                        rate[r, k, 0] - rate[r, q, 0],
                        rate[r, k, 1] - rate[r, q, 1],
                        rate[r, k, 2] - rate[r, q, 2],
                    )
                    along, f = bends[k, q] * (d0 * v0 + d1 * v1 + d2 * v2), pushes[k, q]
                    y0 += along * d0 + f * v0
                    y1 += along * d1 + f * v1
                    y2 += along * d2 + f * v2
                y[k, 0] = x[1, k] * y2 - x[2, k] * y1
                y[k, 1] = x[2, k] * y0 - x[0, k] * y2
                y[k, 2] = x[0, k] * y1 - x[1, k] * y0
                y[k, 3], y[k, 4], y[k, 5] = y0, y1, y2
            for s in range(r + 1):
                value = 0.0
                for k in range(places):
                    value += rate[s, k, 0] * y[k, 3] + rate[s, k, 1] * y[k, 4] + rate[s, k, 2] * y[k, 5]
                found[amplitudes[s], own] = found[own, amplitudes[s]] = value
            for k in range(places - 1, 0, -1):
                for c in range(6):
                    y[refs[k, 0], c] += y[k, c]
            for i in range(rows - rings):
                value = 0.0
                for n in range(roots.shape[1]):
                    if roots[i, n] >= 0:
                        for c in range(6):
                            value += u[i, c] * y[roots[i, n], c]
                found[i, own] = found[own, i] = value
        for t in range(len(atoms)):
            slope[:] = 0
            for n in range(3):
                k = atoms[t, n]
                g0, g1, g2 = slopes[t, 3 * n], slopes[t, 3 * n + 1], slopes[t, 3 * n + 2]
                t0, t1, t2 = x[1, k] * g2 - x[2, k] * g1, x[2, k] * g0 - x[0, k] * g2, x[0, k] * g1 - x[1, k] * g0
                for i in range(rows - rings):
                    if body[i, k]:
                        slope[i] += (
                            u[i, 0] * t0 + u[i, 1] * t1 + u[i, 2] * t2 + u[i, 3] * g0 + u[i, 4] * g1 + u[i, 5] * g2
                        )
                for r in range(rings):
                    slope[amplitudes[r]] += rate[r, k, 0] * g0 + rate[r, k, 1] * g1 + rate[r, k, 2] * g2
            for i in range(rows):
                for j in range(rows):
                    found[i, j] += slope[i] * slope[j]
        if not np.isfinite(found).all():
            found[:] = 0
