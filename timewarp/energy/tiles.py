"""The Triton kernel of `block`: one program evaluates one configuration.

Pairs are visited in tiles of some atoms i beside all atoms j, each pair from both sides, and what belongs to j is
summed over i at the end: nothing is scattered. Only angles and torsions, and what a tile needs of its atoms i, go
through memory, behind a barrier. The formulas and symbols are those of `pairs`. Only this module needs Triton.

| symbol | variable |
|---|---|
| atoms i of a tile [ROWS, 1], atoms j [1, N] | row, col |
| whether the place of a tile is a pair | on |
| r_ij, 1/r_ij | r, w |
| I_j, then dE/dI_j | integral, by_integral |
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

# rows of the tables; no_type_check keeps a type checker's wrapper from between Triton and the source
CHARGE, REPULSION, ATTRACTION, STIFFNESS, LENGTH, BETWEEN, FIELD, SHIFT, REACH2 = (tl.constexpr(k) for k in range(9))
OWN, SCALED, INVERSE_OWN, INVERSE_RHO, ALPHA, BETA, GAMMA, ALONE, NONPOLAR = (tl.constexpr(k) for k in range(9))
CONSTANT, TAU, SOLVENT_REACH2, SOLVENT_SHIFT = (tl.constexpr(k) for k in range(4))


@triton.jit
@no_type_check
def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@triton.jit
@no_type_check
def _plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@triton.jit
@no_type_check
def _times(scale, a):
    return scale * a[0], scale * a[1], scale * a[2]


@triton.jit
@no_type_check
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
@no_type_check
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@triton.jit
@no_type_check
def _place(x, atom, atoms):
    """Where atoms are; atoms past the last are at zero."""
    at, there = x + atom * 3, atom < atoms
    return tl.load(at, mask=there, other=0.0), tl.load(at + 1, mask=there, other=0.0), tl.load(
        at + 2, mask=there, other=0.0
    )  # fmt: skip


@triton.jit
@no_type_check
def _keep(felt, rows, at, here, v):
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
def _angle(x, felt, rows, index, constants, term, here, angles, atoms, WANT: tl.constexpr):
    """Energies of angles; with the gradient, its parts go to the scratch."""
    j = _place(x, tl.load(index + angles + term, mask=here, other=0), atoms)
    u = _minus(_place(x, tl.load(index + term, mask=here, other=0), atoms), j)
    w = _minus(_place(x, tl.load(index + 2 * angles + term, mask=here, other=0), atoms), j)
    c = _cross(u, w)
    sine = tl.maximum(tl.sqrt(_dot(c, c)), 1e-8)
    bend = angle_of(sine, _dot(u, w)) - tl.load(constants + term, mask=here, other=0.0)
    pull = tl.load(constants + angles + term, mask=here, other=0.0) * bend
    if WANT:
        at_i = _times(pull / (sine * _dot(u, u)), _cross(u, c))
        at_k = _times(pull / (sine * _dot(w, w)), _cross(c, w))
        _keep(felt, rows, term, here, at_i)
        _keep(felt, rows, angles + term, here, _times(-1.0, _plus(at_i, at_k)))
        _keep(felt, rows, 2 * angles + term, here, at_k)
    return 0.5 * pull * bend


@triton.jit
@no_type_check
def _torsion(
    x, felt, rows, start, index, waves, term, here, torsions, atoms, PERIODS: tl.constexpr, WANT: tl.constexpr
):
    """Energies of torsions; with the gradient, its parts go to the scratch from row `start` on."""
    i = _place(x, tl.load(index + term, mask=here, other=0), atoms)
    j = _place(x, tl.load(index + torsions + term, mask=here, other=0), atoms)
    k = _place(x, tl.load(index + 2 * torsions + term, mask=here, other=0), atoms)
    b1, b2 = _minus(j, i), _minus(k, j)
    b3 = _minus(_place(x, tl.load(index + 3 * torsions + term, mask=here, other=0), atoms), k)
    m, n = _cross(b1, b2), _cross(b2, b3)
    mm, nn, square = tl.maximum(_dot(m, m), 1e-12), tl.maximum(_dot(n, n), 1e-12), _dot(b2, b2)
    length, scale = tl.sqrt(square), tl.rsqrt(mm * nn)
    cosine, sine = _dot(m, n) * scale, _dot(b1, n) * length * scale
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
        at_i = _times(-slope * length / mm, m)
        at_l = _times(slope * length / nn, n)
        s = _minus(_times(_dot(b1, b2) / square, at_i), _times(_dot(b3, b2) / square, at_l))
        _keep(felt, rows, start + term, here, at_i)
        _keep(felt, rows, start + torsions + term, here, _times(-1.0, _plus(at_i, s)))
        _keep(felt, rows, start + 2 * torsions + term, here, _minus(s, at_l))
        _keep(felt, rows, start + 3 * torsions + term, here, at_l)
    return energy


@triton.jit
@no_type_check
def _distance(here, there, on):
    """The vectors, r^2, r and 1/r of a tile; 1 where there is no pair. At r = 0 it is NaN, which the energy keeps."""
    d = _minus(there, here)
    r2 = tl.where(on, _dot(d, d), 1.0)
    w = tl.rsqrt(r2)
    return d, r2, r2 * w, w


@triton.jit
@no_type_check
def _direct(matrices, r2, r, w, CUT: tl.constexpr, SIZE: tl.constexpr):
    """Bonds, Coulomb and Lennard-Jones of each pair: energy, and pull. The matrices point at the tile."""
    stiffness = tl.load(matrices + STIFFNESS * SIZE)
    stretch = r - tl.load(matrices + LENGTH * SIZE)
    spring = stiffness * stretch
    w2 = w * w
    w6 = w2 * w2 * w2
    repulsion = tl.load(matrices + REPULSION * SIZE) * w6
    attraction = tl.load(matrices + ATTRACTION * SIZE)
    coulomb = tl.load(matrices + CHARGE * SIZE) * w
    energy = coulomb + w6 * (repulsion - attraction)
    pull = -w2 * (coulomb + w6 * (12 * repulsion - 6 * attraction))
    if CUT:
        near = r2 < tl.load(matrices + REACH2 * SIZE)
        field = tl.load(matrices + FIELD * SIZE)
        energy = tl.where(near, energy + field * r2 - tl.load(matrices + SHIFT * SIZE), 0.0)
        pull = tl.where(near, pull + 2 * field, 0.0)
    return energy + 0.5 * spring * stretch, pull + spring * w


@triton.jit
@no_type_check
def _descreening(near, r, w, own, scaled):
    """H of an atom of radius `own` beside one of radius `scaled`, and its slope over r."""
    gap = tl.abs(r - scaled)
    low, up = tl.maximum(gap, own), r + scaled
    once = 1 / (low * up)
    il, iu = up * once, low * once
    difference = iu - il
    squares = difference * (iu + il)
    ratio = scaled * w
    lever = r - scaled * ratio
    log = tl.log(low * iu) * w
    counted = near & (up > own)
    term = 0.125 * lever * squares - 0.5 * difference + 0.25 * log
    moved = tl.where(gap > own, tl.where(r > scaled, il, -il), 0.0)  # d(lower)/dr / lower
    slope = iu * iu - moved * il + 0.25 * (1 + ratio * ratio) * squares
    slope += 0.5 * lever * (moved * il * il - iu * iu * iu) + 0.5 * w * (moved - iu - log)
    return tl.where(counted, term, 0.0), tl.where(counted, 0.5 * w * slope, 0.0)


@triton.jit
@no_type_check
def _solvent(near, charge, r2, inverses, radii):
    """dE/df / f of a pair in the solvent, the decay, 1/f and the charge that counts."""
    decay = tl.exp(-0.25 * r2 * inverses)
    v = tl.rsqrt(r2 + radii * decay)
    charge = tl.where(near, charge, 0.0)
    return charge * v * v * v, decay, v, charge


@triton.jit(do_not_specialize=["atoms", "angles", "torsions"])
@no_type_check
def evaluate(
    positions, energies, gradients, scratch, matrices, spheres, numbers, angle_index, angle, torsion_index, torsion,
    slots, atoms, angles, torsions,
    N: tl.constexpr, ROWS: tl.constexpr, END: tl.constexpr, TERMS: tl.constexpr, ANGLES: tl.constexpr,
    TORSIONS: tl.constexpr, PERIODS: tl.constexpr, MOST: tl.constexpr,
    WANT: tl.constexpr, BORN: tl.constexpr, RESCALED: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """Energy and gradient of the configuration that the program is for.

    END, ANGLES, TORSIONS and MOST are the bounds of the loops: the counts, rounded up for many molecules to share one.
    """
    which = tl.program_id(0).to(tl.int64)
    x = positions + which * (atoms * 3)
    rows = 3 * angles + 4 * torsions
    # 1/B_i of all atoms; with the gradient also dE/dI_i, and then the rows
    if WANT:
        atomic = scratch + which * (2 * N + 3 * rows)
    else:
        atomic = scratch + which * N
    felt = atomic + 2 * N
    SIZE: tl.constexpr = N * N

    bonded = tl.zeros([TERMS], tl.float32)
    for first in range(0, ANGLES, TERMS):
        term = first + tl.arange(0, TERMS)
        bonded += _angle(x, felt, rows, angle_index, angle, term, term < angles, angles, atoms, WANT)
    for first in range(0, TORSIONS, TERMS):
        term = first + tl.arange(0, TERMS)
        here = term < torsions
        bonded += _torsion(
            x, felt, rows, 3 * angles, torsion_index, torsion, term, here, torsions, atoms, PERIODS, WANT
        )

    col = tl.arange(0, N)[None, :]
    there = _place(x, col, atoms)
    energy = tl.zeros([ROWS, N], tl.float32)
    total = tl.sum(bonded) + tl.load(numbers + CONSTANT)
    if BORN:
        tau, reach2 = tl.load(numbers + TAU), tl.load(numbers + SOLVENT_REACH2)
        shift = tl.load(numbers + SOLVENT_SHIFT)
        own, scaled = tl.load(spheres + OWN * N + col), tl.load(spheres + SCALED * N + col)
        inverse_own = tl.load(spheres + INVERSE_OWN * N + col)
        found = tl.zeros([ROWS, N], tl.float32)
        for first in range(0, END, ROWS):
            row = first + tl.arange(0, ROWS)[:, None]
            on = (row < atoms) & (col < atoms) & (row != col)
            _, r2, r, w = _distance(_place(x, row, atoms), there, on)
            found += _descreening(on & (r2 < reach2), r, w, own, tl.load(spheres + SCALED * N + row))[0]
        integral = tl.sum(found, 0)[None, :]
        if RESCALED:
            psi = integral * own
            alpha, beta = tl.load(spheres + ALPHA * N + col), tl.load(spheres + BETA * N + col)
            gamma = tl.load(spheres + GAMMA * N + col)
            swell = psi * (alpha + psi * (-beta + psi * gamma))
            e = tl.exp(-2 * tl.abs(swell))
            tanh = (1 - e) / (1 + e)
            inverse_rho = tl.load(spheres + INVERSE_RHO * N + col)
            inverse = inverse_own - tl.where(swell < 0, -tanh, tanh) * inverse_rho
        else:
            inverse = inverse_own - integral
        radius = 1 / inverse
        tl.store(atomic + col, inverse)
        square = inverse * inverse
        lone = tau * tl.load(spheres + ALONE * N + col) * inverse
        nonpolar = tl.load(spheres + NONPOLAR * N + col) * square * square * square
        total += tl.sum(tl.where(col < atoms, nonpolar - lone, 0.0))
        tl.debug_barrier()

        found = tl.zeros([ROWS, N], tl.float32)
        for first in range(0, END, ROWS):
            row = first + tl.arange(0, ROWS)[:, None]
            on = (row < atoms) & (col < atoms) & (row != col)
            _, r2, r, w = _distance(_place(x, row, atoms), there, on)
            table = matrices + row * N + col
            inverse_i = tl.load(atomic + row)
            radius_i = 1 / inverse_i
            near, between = on & (r2 < reach2), tau * tl.load(table + BETWEEN * SIZE)
            steep, decay, v, charge = _solvent(near, between, r2, inverse_i * inverse, radius_i * radius)
            energy -= charge * (v - shift)
            if WANT:
                half = 0.5 * steep * decay
                found += half * radius_i + 0.25 * half * r2 * inverse
            else:
                energy += _direct(table, r2, r, w, CUT, SIZE)[0]
        if WANT:
            by_integral = (tl.sum(found, 0)[None, :] + (lone - 6 * nonpolar) * inverse) * radius * radius
            if RESCALED:
                slope = alpha + psi * (-2 * beta + psi * 3 * gamma)
                by_integral *= 4 * e / ((1 + e) * (1 + e)) * slope * own * inverse_rho
            tl.store(atomic + N + col, by_integral)
    tl.debug_barrier()

    gx = tl.zeros([ROWS, N], tl.float32)
    gy = tl.zeros([ROWS, N], tl.float32)
    gz = tl.zeros([ROWS, N], tl.float32)
    if WANT or not BORN:
        for first in range(0, END, ROWS):
            row = first + tl.arange(0, ROWS)[:, None]
            on = (row < atoms) & (col < atoms) & (row != col)
            d, r2, r, w = _distance(_place(x, row, atoms), there, on)
            table = matrices + row * N + col
            more, along = _direct(table, r2, r, w, CUT, SIZE)
            energy += more
            if BORN:
                inverse_i = tl.load(atomic + row)
                near, between = on & (r2 < reach2), tau * tl.load(table + BETWEEN * SIZE)
                steep, decay, _, _ = _solvent(near, between, r2, inverse_i * inverse, 1 / inverse_i * radius)
                own_i, scaled_i = tl.load(spheres + OWN * N + row), tl.load(spheres + SCALED * N + row)
                along += steep * (1 - 0.25 * decay) + by_integral * _descreening(near, r, w, own, scaled_i)[1]
                along += tl.load(atomic + N + row) * _descreening(near, r, w, own_i, scaled)[1]
            if WANT:
                gx += along * d[0]
                gy += along * d[1]
                gz += along * d[2]

    total += 0.5 * tl.sum(energy)
    fine = tl.abs(total) < float("inf")
    tl.store(energies + which, tl.where(fine, total, float("inf")))
    if WANT:
        for first in range(0, MOST, ROWS):
            at = tl.load(slots + (first + tl.arange(0, ROWS)[:, None]) * N + col)
            some = at < rows
            gx += tl.load(felt + at, mask=some, other=0.0)
            gy += tl.load(felt + rows + at, mask=some, other=0.0)
            gz += tl.load(felt + 2 * rows + at, mask=some, other=0.0)
        sx, sy, sz = tl.sum(gx, 0)[None, :], tl.sum(gy, 0)[None, :], tl.sum(gz, 0)[None, :]
        at = gradients + which * (atoms * 3) + col * 3
        live, limit = col < atoms, tl.where(fine, float("inf"), 0.0)
        tl.store(at, tl.where(tl.abs(sx) < limit, sx, 0.0), mask=live)
        tl.store(at + 1, tl.where(tl.abs(sy) < limit, sy, 0.0), mask=live)
        tl.store(at + 2, tl.where(tl.abs(sz) < limit, sz, 0.0), mask=live)
