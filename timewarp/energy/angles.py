"""Angles and torsions of a batch, and what they pull at each of their atoms.

Positions are [3, atoms, batch]; each function returns U of each configuration and, for each place in the term, the
gradient in the three directions of its atom, [terms, batch] each.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

Vector = tuple[Tensor, Tensor, Tensor]  # of [terms, batch]


def angles(
    x: Float[Tensor, "3 atoms batch"],
    index: Int[Tensor, "3 angles"],
    constants: Float[Tensor, "2 angles 1"],
    want: bool,
) -> tuple[Float[Tensor, " batch"], list[Vector]]:
    """k/2 (theta - theta0)^2 in kJ/mol, and its gradient at i, j, k (none if not wanted)."""
    i, j, k = (tuple(x[c, atom] for c in range(3)) for atom in index.unbind(0))
    value, stiffness = constants.unbind(0)
    u, w = _minus(i, j), _minus(k, j)
    c = _cross(u, w)
    sine = _dot(c, c).sqrt().clamp_min(1e-8)
    bend = torch.atan2(sine, _dot(u, w)) - value
    pull = stiffness * bend
    energy = 0.5 * (pull * bend).sum(0)
    if not want:
        return energy, []
    # d(theta)/dx_i = u x c / (|u|^2 |c|), d(theta)/dx_k = c x w / (|w|^2 |c|)
    at_i = _times(pull / (sine * _dot(u, u)), _cross(u, c))
    at_k = _times(pull / (sine * _dot(w, w)), _cross(c, w))
    return energy, [at_i, _times(-1.0, _plus(at_i, at_k)), at_k]


def torsions(
    x: Float[Tensor, "3 atoms batch"],
    index: Int[Tensor, "4 torsions"],
    waves: Float[Tensor, "2 periods torsions 1"],
    want: bool,
) -> tuple[Float[Tensor, " batch"], list[Vector]]:
    """sum_n a_n cos(n phi) + b_n sin(n phi) in kJ/mol, and its gradient at i, j, k, l (none if not wanted).

    No angle is computed: cos(n phi) and sin(n phi) are the n-th power of cos(phi) + i sin(phi).
    """
    i, j, k, l = (tuple(x[c, atom] for c in range(3)) for atom in index.unbind(0))  # noqa: E741
    b1, b2, b3 = _minus(j, i), _minus(k, j), _minus(l, k)
    m, n = _cross(b1, b2), _cross(b2, b3)
    mm, nn, square = _dot(m, m).clamp_min(1e-12), _dot(n, n).clamp_min(1e-12), _dot(b2, b2)
    length, scale = square.sqrt(), torch.rsqrt(mm * nn)
    cosine, sine = _dot(m, n) * scale, _dot(b1, n) * length * scale
    energy, slope, real, imaginary = 0.0, 0.0, 1.0, 0.0
    for period, (a, b) in enumerate(zip(waves[0], waves[1]), 1):
        real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
        energy = energy + a * real + b * imaginary
        slope = slope + period * (b * real - a * imaginary)
    energy = energy.sum(0)  # type: ignore[attr-defined]
    if not want:
        return energy, []
    # Bekker's form (see Allen & Tildesley, appendix C)
    at_i = _times(-slope * length / mm, m)
    at_l = _times(slope * length / nn, n)
    s = _minus(_times(_dot(b1, b2) / square, at_i), _times(_dot(b3, b2) / square, at_l))
    return energy, [at_i, _times(-1.0, _plus(at_i, s)), _minus(s, at_l), at_l]


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _times(scale, a):
    return scale * a[0], scale * a[1], scale * a[2]
