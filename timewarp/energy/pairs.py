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
    gradient: Float[Tensor, "batch atoms 3"] | None
    kept: list[Tensor]


def evaluate(positions: Float[Tensor, "batch atoms 3"], t: Tables, want: bool) -> Evaluated:
    """The potential at positions in nm, but for maps and impropers; with its gradient if wanted.

    Where it is not finite it is +inf, and the gradient zero.
    """
    x = positions.permute(2, 1, 0).contiguous()
    i, j = t.ends.unbind(0)
    dx, dy, dz = (x[c, i] - x[c, j] for c in range(3))
    r2 = dx * dx + dy * dy + dz * dz
    r = r2.sqrt()
    energy, pull = _direct(Pairs(*t.pairs.unbind(0)), r2, r, want)
    bend, bent = angles(x, t.angle_index, t.angle, want)
    twist, twisted = torsions(x, t.torsion_index, t.torsion, want)
    total, kept, chain = bend + twist + t.constant, [x, r2], 0.0
    if t.born is not None:
        between, alone, more, stored, chain = _solvent(t, t.born, r2, r, want)
        energy, pull = energy + between, pull + more
        total, kept = total + alone, kept + stored
    # the rows are those of all atoms and their next, then their next but one: two short sums lose less than a long one
    total = total + energy.unflatten(0, (-1, x.shape[1])).sum(0).sum(0)
    if not want:
        return Evaluated(*finite(total, None), kept)
    empty = torch.zeros_like(x[0, :1])
    rows = [torch.cat([*(v[c] for v in (*bent, *twisted)), empty]) for c in range(3)]
    along = pull[t.shared] + chain
    sides = [(along * (x[c] - x[c, t.partners])).sum(0) + rows[c][t.slots].sum(0) for c in range(3)]
    return Evaluated(*finite(total, torch.stack(sides).permute(2, 1, 0)), [*kept, pull, *rows])


def finite(
    energy: Float[Tensor, " batch"], gradient: Float[Tensor, "batch atoms 3"] | None
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"] | None]:
    """The same with +inf in place of an energy that is not finite, and zero in place of such a gradient."""
    fine = energy.isfinite()
    energy = torch.where(fine, energy, torch.inf)
    if gradient is None:
        return energy, None
    return energy, torch.where(fine[:, None, None] & gradient.isfinite(), gradient, 0.0)


def _direct(c: Pairs, r2: Rows, r: Rows, want: bool) -> tuple[Rows, Rows]:
    """Bonds, Coulomb and Lennard-Jones of each pair; the bond is for all, as an energy of NaN must stay one."""
    w = 1 / r
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


def _solvent(t: Tables, born: Born, r2: Rows, r: Rows, want: bool):
    """U of each pair and of the single atoms, the pull at fixed Born radii, what is kept, and the pull through them."""
    pair, atom, number = Spheres(*born.pairs.unbind(0)), Atoms(*born.atoms.unbind(0)), Solvent(*born.numbers.unbind(0))
    i, j = t.ends.unbind(0)
    near = r2 < number.reach2
    none = torch.zeros_like(r2)
    at_i, at_j, fall_i, fall_j = _descreening(r, pair, want)
    if born.neck is not None:
        (neck_i, slope_i), (neck_j, slope_j) = (_neck(r, born.neck[:, side]) for side in (0, 1))
        at_i, at_j, fall_i, fall_j = at_i + neck_i, at_j + neck_j, fall_i + slope_i, fall_j + slope_j
    reach = torch.cat([torch.where(near, at_i, none), torch.where(near, at_j, none)])
    integral = reach[t.ordered].sum(0)

    psi = integral * atom.own
    if born.rescaled:
        tanh = torch.tanh(psi * (atom.alpha + psi * (-atom.beta + psi * atom.gamma)))
        inverse = atom.inverse_own - tanh * atom.inverse_rho
    else:
        inverse = atom.inverse_own - integral
    radius = 1 / inverse
    decay = torch.exp(-0.25 * r2 * (inverse[i] * inverse[j]))
    f = (r2 + radius[i] * radius[j] * decay).sqrt()
    v = 1 / f
    charge = torch.where(near, pair.charge, none)
    if born.salt:
        screen, screen0 = (number.solvent * torch.exp(-number.kappa * length) for length in (f, radius))
        tau, tau0 = number.solute - screen, number.solute - screen0
        steep = charge * (tau * v * v - number.kappa * screen * (v - number.shift)) * v  # dE/df / f
        lone = atom.charge * (tau0 * inverse - number.kappa * screen0) * inverse
    else:
        tau = tau0 = number.solute - number.solvent
        steep = tau * charge * v * v * v
        lone = atom.charge * tau0 * inverse * inverse
    nonpolar = atom.nonpolar * inverse**6
    between, alone = -tau * charge * (v - number.shift), (nonpolar - atom.charge * tau0 * inverse).sum(0)
    if not want:
        return between, alone, none, [reach, inverse, radius], 0.0

    fall = torch.cat([torch.where(near, fall_i, none), torch.where(near, fall_j, none)])
    half = 0.5 * steep * decay
    across = 0.25 * half * r2
    by_radius = (half[t.shared] * radius[t.partners] + across[t.shared] * inverse).sum(0)
    by_integral = (by_radius + lone - 6 * nonpolar * inverse) * radius * radius
    if born.rescaled:
        slope = atom.alpha + psi * (-2 * atom.beta + psi * 3 * atom.gamma)
        by_integral = by_integral * (1 - tanh * tanh) * slope * atom.own * atom.inverse_rho
    chain = by_integral * fall[t.ordered] + by_integral[t.partners] * fall[t.reverse]
    kept = [reach, inverse, radius, fall, half, across, by_integral]
    return between, alone, steep * (1 - 0.25 * decay), kept, chain


def _descreening(r: Rows, pair: Spheres, want: bool) -> list[Rows]:
    """H of i beside j and of j beside i, and their slopes over r (zeros if not wanted)."""
    sides = ((pair.own_i, pair.scaled_j), (pair.own_j, pair.scaled_i))
    none = torch.zeros_like(r)
    apart = [(r - scaled).abs() for _, scaled in sides]
    lower = [torch.maximum(gap, own + none) for gap, (own, _) in zip(apart, sides)]
    upper = [r + scaled for _, scaled in sides]
    spans = [lo * up for lo, up in zip(lower, upper)]
    # one division for three
    product = spans[0] * spans[1]
    once = 1 / (r * product)
    w = once * product
    shares = [once * r * spans[1], once * r * spans[0]]
    terms, slopes = [], []
    for (own, scaled), gap, lo, up, share in zip(sides, apart, lower, upper, shares):
        il, iu = up * share, lo * share
        difference = iu - il
        squares = difference * (iu + il)
        ratio = scaled * w
        log = torch.log(lo * iu) * w
        counted = up > own
        term = 0.125 * (r - scaled * ratio) * squares - 0.5 * difference + 0.25 * log
        terms.append(torch.where(counted, term, none))
        if not want:
            slopes.append(none)
            continue
        moved = torch.where(gap > own, (r - scaled).sign(), none) * il  # d(lower)/dr / lower
        slope = iu * iu - moved * il + 0.25 * (1 + ratio * ratio) * squares
        slope = slope + 0.5 * (r - scaled * ratio) * (moved * il * il - iu * iu * iu) + 0.5 * w * (moved - iu - log)
        slopes.append(torch.where(counted, 0.5 * w * slope, none))
    return [*terms, *slopes]


def _neck(r: Rows, constants):
    """The neck of a pair on one side, and its slope over r."""
    depth, position, limit = constants.unbind(0)
    d = r - position
    d2 = d * d
    d4 = d2 * d2
    inverse = 1 / (1 + 100 * d2 + 0.3e6 * d4 * d2)
    neck = torch.where(r < limit, depth * inverse, torch.zeros_like(r))
    return neck, -neck * inverse * d * (200 + 1.8e6 * d4) / r
