"""All terms of a batch in one function: pairs of atoms, generalized Born solvent, angles and torsions.

The batch is the innermost axis: a processor's lanes are configurations, and the constants of a pair are scalars to
them. What is symmetric is computed once for each unordered pair, in rows of [pairs, batch]; an atom then adds up the
rows of its partners. Nothing is scattered. The function is plain torch, and made for being compiled: its steps fuse
into one loop over the pairs before and one after the Born radii, and one over the atoms for each sum.

| symbol | variable |
|---|---|
| r_ij | r |
| (dE/dr)/r | pull |
| I_i (Born integral) | integral |
| H_ij, with I_i = sum_j H_ij; (dH_ij/dr)/r | reach, fall |
| B_i (Born radius), 1/B_i | radius, inverse |
| f_GB | f |
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.energy.angles import angles, torsions
from timewarp.energy.tables import Atoms, Born, Pairs, Solvent, Spheres, Tables

Rows = Float[Tensor, "pairs batch"]


class Evaluated(NamedTuple):
    """Of each configuration: U in kJ/mol, and its gradient in kJ/mol/nm (None if not wanted).

    `kept` is what was stored on the way: handing it out keeps the compiler from computing it again.
    """

    energy: Float[Tensor, " batch"]
    gradient: Float[Tensor, "3 atoms batch"] | None
    kept: list[Tensor]


def evaluate(x: Float[Tensor, "3 atoms batch"], t: Tables, want: bool) -> Evaluated:
    """The potential at positions in nm, but for maps and impropers; with its gradient if wanted."""
    i, j = t.ends.unbind(0)
    dx, dy, dz = (x[c, i] - x[c, j] for c in range(3))
    r2 = dx * dx + dy * dy + dz * dz
    r = r2.sqrt()
    w = 1 / r
    energy, pull = _direct(Pairs(*t.pairs.unbind(0)), r2, r, w, want)
    bend, bent = angles(x, t.angle_index, t.angle, want)
    twist, twisted = torsions(x, t.torsion_index, t.torsion, want)
    total, kept, chain = energy.sum(0) + bend + twist + t.constant, [], 0.0
    if t.born is not None:
        solvent, more, kept, chain = _solvent(t, t.born, r2, r, w, want)
        total = total + solvent
        pull = pull + more
    if not want:
        return Evaluated(total, None, kept)
    empty = torch.zeros_like(x[0, :1])
    rows = torch.stack([torch.cat([*(v[c] for v in (*bent, *twisted)), empty]) for c in range(3)])
    along = pull[t.shared] + chain
    sides = [(along * (x[c] - x[c, t.partners])).sum(0) + rows[c, t.slots].sum(0) for c in range(3)]
    return Evaluated(total, torch.stack(sides), [*kept, pull, rows])


def _direct(c: Pairs, r2: Rows, r: Rows, w: Rows, want: bool) -> tuple[Rows, Rows]:
    """Bonds, Coulomb and Lennard-Jones of each pair; the bond is for all, as an energy of NaN must stay one."""
    stretch = r - c.length
    spring = c.stiffness * stretch
    w2 = w * w
    w6 = w2 * w2 * w2
    near = r2 < c.reach2
    far = torch.zeros_like(r2)
    repulsion, coulomb = c.repulsion * w6, c.charge * w
    energy = torch.where(near, coulomb + c.field * r2 - c.shift + w6 * (repulsion - c.attraction), far)
    energy = energy + 0.5 * spring * stretch
    if not want:
        return energy, far
    pull = torch.where(near, 2 * c.field - w2 * (coulomb + w6 * (12 * repulsion - 6 * c.attraction)), far)
    return energy, pull + spring * w


def _solvent(t: Tables, born: Born, r2: Rows, r: Rows, w: Rows, want: bool):
    """U of each configuration, the pull between pairs at fixed Born radii, and through the Born radii."""
    pair, atom, number = Spheres(*born.pairs.unbind(0)), Atoms(*born.atoms.unbind(0)), Solvent(*born.numbers.unbind(0))
    i, j = t.ends.unbind(0)
    near = r2 < number.reach2
    none = torch.zeros_like(r2)
    at_i, fall_i = _descreening(r, w, pair.own_i, pair.scaled_j, want)
    at_j, fall_j = _descreening(r, w, pair.own_j, pair.scaled_i, want)
    if born.neck is not None:
        (neck_i, slope_i), (neck_j, slope_j) = (_neck(r, w, born.neck[:, side]) for side in (0, 1))
        at_i, at_j, fall_i, fall_j = at_i + neck_i, at_j + neck_j, fall_i + slope_i, fall_j + slope_j
    reach = torch.cat([torch.where(near, at_i, none), torch.where(near, at_j, none)])
    integral = reach[t.ordered].sum(0)

    psi = integral * atom.own
    if born.rescaled:
        tanh = torch.tanh(psi * (atom.alpha + psi * (-atom.beta + psi * atom.gamma)))
        inverse = 1 / atom.own - tanh / atom.rho
    else:
        inverse = 1 / atom.own - integral
    radius = 1 / inverse
    product = radius[i] * radius[j]
    decay = torch.exp(-0.25 * r2 * inverse[i] * inverse[j])
    f2 = r2 + product * decay
    f = f2.sqrt()
    v = 1 / f
    charge = torch.where(near, pair.charge, none)
    if born.salt:
        screen, screen0 = (number.solvent * torch.exp(-number.kappa * length) for length in (f, radius))
        tau, tau0 = number.solute - screen, number.solute - screen0
        steep = charge * (tau * v * v - number.kappa * screen * (v - number.shift)) * v  # dE/df / f
        alone = atom.charge * (tau0 * inverse - number.kappa * screen0) * inverse
    else:
        tau = tau0 = number.solute - number.solvent
        steep = tau * charge * v * v * v
        alone = atom.charge * tau0 * inverse * inverse
    nonpolar = atom.nonpolar * inverse**6
    energy = -(tau * charge * (v - number.shift)).sum(0) + (nonpolar - atom.charge * tau0 * inverse).sum(0)
    if not want:
        return energy, none, [reach], 0.0

    fall = torch.cat([torch.where(near, fall_i, none), torch.where(near, fall_j, none)])
    half = 0.5 * steep * decay
    across = 0.25 * half * r2
    by_radius = (
        (half[t.shared] * radius[t.partners] + across[t.shared] * inverse).sum(0) + alone - 6 * nonpolar * inverse
    )
    if born.rescaled:
        slope = (1 - tanh * tanh) * (atom.alpha + psi * (-2 * atom.beta + psi * 3 * atom.gamma)) * atom.own / atom.rho
        by_integral = by_radius * radius * radius * slope
    else:
        by_integral = by_radius * radius * radius
    chain = by_integral * fall[t.ordered] + by_integral[t.partners] * fall[t.reverse]
    return energy, steep * (1 - 0.25 * decay), [reach, fall, half, across, by_integral], chain


def _descreening(r: Rows, w: Rows, own, scaled, want: bool):
    """H of a sphere of radius `own` beside one of radius `scaled`, and its slope over r (None if not wanted)."""
    upper, gap = r + scaled, r - scaled
    apart = gap.abs()
    lower = torch.maximum(apart, own + torch.zeros_like(apart))
    both = 1 / (lower * upper)
    il, iu = upper * both, lower * both
    difference = iu - il
    squares = difference * (iu + il)
    ratio = scaled * w
    log = torch.log(lower * iu) * w
    none = torch.zeros_like(r)
    counted = upper > own
    term = 0.125 * (r - scaled * ratio) * squares - 0.5 * difference + 0.25 * log
    term = torch.where(counted, term, none)
    if not want:
        return term, none
    moved = torch.where(apart > own, gap.sign(), none) * il  # d(lower)/dr / lower
    slope = iu * iu - moved * il + 0.25 * (1 + ratio * ratio) * squares
    slope = slope + 0.5 * (r - scaled * ratio) * (moved * il * il - iu * iu * iu) + 0.5 * w * (moved - iu - log)
    return term, torch.where(counted, 0.5 * w * slope, none)


def _neck(r: Rows, w: Rows, constants):
    """The neck of a pair on one side, and its slope over r."""
    depth, position, limit = constants.unbind(0)
    d = r - position
    d2 = d * d
    d4 = d2 * d2
    inverse = 1 / (1 + 100 * d2 + 0.3e6 * d4 * d2)
    neck = torch.where(r < limit, depth * inverse, torch.zeros_like(r))
    return neck, -neck * inverse * d * (200 + 1.8e6 * d4) * w
