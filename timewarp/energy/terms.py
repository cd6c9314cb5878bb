"""Angles and torsions in the kernel of `tiles`, and the vectors that it computes with: triples of tensors.

| symbol | variable |
|---|---|
| where a term's parts of the gradient are kept, [3, rows] | felt |
| k and theta_0 of angles, V_n cos and V_n sin of torsions | constants, waves |
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@triton.jit
@no_type_check
def plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@triton.jit
@no_type_check
def times(scale, a):
    return scale * a[0], scale * a[1], scale * a[2]


@triton.jit
@no_type_check
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
@no_type_check
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@triton.jit
@no_type_check
def place(x, atom, atoms):
    """Where atoms are; atoms past the last are at zero."""
    at, there = x + atom * 3, atom < atoms
    return tl.load(at, mask=there, other=0.0), tl.load(at + 1, mask=there, other=0.0), tl.load(
        at + 2, mask=there, other=0.0
    )  # fmt: skip


@triton.jit
@no_type_check
def keep(felt, rows, at, here, v):
    """Store vectors in rows of the scratch, [3, rows]."""
    tl.store(felt + at, v[0], mask=here)
    tl.store(felt + rows + at, v[1], mask=here)
    tl.store(felt + 2 * rows + at, v[2], mask=here)


@triton.jit
@no_type_check
def angle_of(sine, cosine):
    """atan2(sine, cosine) of a positive sine: the polynomial of Cephes, within tan(pi/8) of 0 or of pi/4."""
    across = tl.abs(cosine)
    low, high = tl.minimum(sine, across), tl.maximum(sine, across)
    middle = low > 0.41421356 * high
    q = tl.where(middle, low - high, low) / tl.where(middle, low + high, high)
    z = q * q
    p = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1
    a = p * z * q + q
    a = tl.where(middle, a + 0.785398163397448, a)
    a = tl.where(across < sine, 1.570796326794897 - a, a)
    return tl.where(cosine < 0, 3.141592653589793 - a, a)


@triton.jit
@no_type_check
def angle_energy(x, felt, rows, index, constants, term, here, angles, atoms, WANT: tl.constexpr):
    """Energies of angles; with the gradient, its parts go to the scratch."""
    j = place(x, tl.load(index + angles + term, mask=here, other=0), atoms)
    u = minus(place(x, tl.load(index + term, mask=here, other=0), atoms), j)
    w = minus(place(x, tl.load(index + 2 * angles + term, mask=here, other=0), atoms), j)
    c = cross(u, w)
    sine = tl.maximum(tl.sqrt(dot(c, c)), 1e-8)
    bend = angle_of(sine, dot(u, w)) - tl.load(constants + term, mask=here, other=0.0)
    pull = tl.load(constants + angles + term, mask=here, other=0.0) * bend
    if WANT:
        at_i = times(pull / (sine * dot(u, u)), cross(u, c))
        at_k = times(pull / (sine * dot(w, w)), cross(c, w))
        keep(felt, rows, term, here, at_i)
        keep(felt, rows, angles + term, here, times(-1.0, plus(at_i, at_k)))
        keep(felt, rows, 2 * angles + term, here, at_k)
    return 0.5 * pull * bend


@triton.jit
@no_type_check
def torsion_energy(
    x, felt, rows, start, index, waves, term, here, torsions, atoms, PERIODS: tl.constexpr, WANT: tl.constexpr
):
    """Energies of torsions; with the gradient, its parts go to the scratch from row `start` on."""
    i = place(x, tl.load(index + term, mask=here, other=0), atoms)
    j = place(x, tl.load(index + torsions + term, mask=here, other=0), atoms)
    k = place(x, tl.load(index + 2 * torsions + term, mask=here, other=0), atoms)
    b1, b2 = minus(j, i), minus(k, j)
    b3 = minus(place(x, tl.load(index + 3 * torsions + term, mask=here, other=0), atoms), k)
    m, n = cross(b1, b2), cross(b2, b3)
    mm, nn, square = tl.maximum(dot(m, m), 1e-12), tl.maximum(dot(n, n), 1e-12), dot(b2, b2)
    length, scale = tl.sqrt(square), tl.rsqrt(mm * nn)
    cosine, sine = dot(m, n) * scale, dot(b1, n) * length * scale
    energy, slope = cosine * 0, cosine * 0
    real, imaginary = energy + 1, energy
    for period in tl.static_range(PERIODS):
        a = tl.load(waves + period * torsions + term, mask=here, other=0.0)
        b = tl.load(waves + (PERIODS + period) * torsions + term, mask=here, other=0.0)
        turned = real * sine + imaginary * cosine
        real = real * cosine - imaginary * sine
        imaginary = turned
        energy += a * real + b * imaginary
        slope += (period + 1) * (b * real - a * imaginary)
    if WANT:
        at_i = times(-slope * length / mm, m)
        at_l = times(slope * length / nn, n)
        s = minus(times(dot(b1, b2) / square, at_i), times(dot(b3, b2) / square, at_l))
        keep(felt, rows, start + term, here, at_i)
        keep(felt, rows, start + torsions + term, here, times(-1.0, plus(at_i, s)))
        keep(felt, rows, start + 2 * torsions + term, here, minus(s, at_l))
        keep(felt, rows, start + 3 * torsions + term, here, at_l)
    return energy
