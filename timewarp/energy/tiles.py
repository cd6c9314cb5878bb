"""The Triton kernel of `block`: one program evaluates one configuration.

Pairs are visited in tiles of some atoms i beside all atoms j, each pair from both sides, and what belongs to j is
summed over i at the end: nothing is scattered. Only angles and torsions (see `terms`), and what a tile needs of its
atoms i, go through memory, behind a barrier. The formulas and symbols are those of `pairs`. Only these two modules,
and that of `flow.placing`, need Triton.

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

from timewarp.energy.terms import angle_energy, dot, minus, place, torsion_energy

# rows of the tables; no_type_check keeps a type checker's wrapper from between Triton and the source
CHARGE, REPULSION, ATTRACTION, STIFFNESS, LENGTH, BETWEEN, FIELD, SHIFT, REACH2 = (tl.constexpr(k) for k in range(9))
OWN, SCALED, INVERSE_OWN, INVERSE_RHO, ALPHA, BETA, GAMMA, ALONE, NONPOLAR = (tl.constexpr(k) for k in range(9))
CONSTANT, TAU, SOLVENT_REACH2, SOLVENT_SHIFT = (tl.constexpr(k) for k in range(4))


@triton.jit
@no_type_check
def _distance(here, there, on):
    """The vectors, r^2, r and 1/r of a tile; 1 where there is no pair. At r = 0 it is NaN, which the energy keeps."""
    d = minus(there, here)
    r2 = tl.where(on, dot(d, d), 1.0)
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
        bonded += angle_energy(x, felt, rows, angle_index, angle, term, term < angles, angles, atoms, WANT)
    for first in range(0, TORSIONS, TERMS):
        term = first + tl.arange(0, TERMS)
        here = term < torsions
        bonded += torsion_energy(
            x, felt, rows, 3 * angles, torsion_index, torsion, term, here, torsions, atoms, PERIODS, WANT
        )

    col = tl.arange(0, N)[None, :]
    there = place(x, col, atoms)
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
            _, r2, r, w = _distance(place(x, row, atoms), there, on)
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
            _, r2, r, w = _distance(place(x, row, atoms), there, on)
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
            d, r2, r, w = _distance(place(x, row, atoms), there, on)
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
