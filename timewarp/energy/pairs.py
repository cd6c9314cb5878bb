"""Coulomb, Lennard-Jones and generalized Born solvent over all pairs of a batch, with their gradient.

All matrices are [batch, atoms, atoms]: the Born integral is not symmetric and needs every ordered pair, no
gather or scatter is needed, and the gradient of a sum over pairs is `sum_j c_ij (x_i - x_j)`.

| symbol | variable |
|---|---|
| r_ij | r |
| c_ij = (dE/dr)/r | pull |
| I_i (Born integral) | integral |
| B_i (Born radius) | radius |
| f_GB | f |
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.forcefield import ForceField

Matrix = Float[Tensor, "batch atoms atoms"]


class Tables(NamedTuple):
    """Pair matrices of one molecule: made once, used for every batch."""

    charge: Tensor  # coulomb q_i q_j, 0 where an exception replaces the pair
    sigma6: Tensor
    epsilon: Tensor  # 4 epsilon_ij
    cutoff: float
    krf: float
    crf: float
    born: BornTables | None


class BornTables(NamedTuple):
    charge: Tensor  # coulomb q_i q_j, 0 on the diagonal
    own: Tensor  # or_i
    other: Tensor  # sr_j
    off_diagonal: Tensor
    radius: Tensor
    self_charge: Tensor
    offset: float
    alpha: float
    beta: float
    gamma: float
    solute: float
    solvent: float
    kappa: float
    surface: float
    cutoff: float


def tables(ff: ForceField, coulomb: float) -> Tables:
    """The pair matrices of a force field."""
    n = len(ff.charge)
    allowed = ~torch.eye(n, dtype=torch.bool, device=ff.charge.device)
    i, j = ff.exception_index.unbind(1)
    allowed[i, j] = allowed[j, i] = False
    born = ff.born
    solvent = None
    if born is not None:
        off = 1 - torch.eye(n, dtype=ff.charge.dtype, device=ff.charge.device)
        solvent = BornTables(
            charge=born.coulomb * born.charge[:, None] * born.charge * off,
            own=born.radius[:, None].expand(n, n).contiguous(),
            other=born.scaled[None, :].expand(n, n).contiguous(),
            off_diagonal=off,
            radius=born.radius,
            self_charge=0.5 * born.coulomb * born.charge.square(),
            offset=born.offset,
            alpha=born.alpha,
            beta=born.beta,
            gamma=born.gamma,
            solute=1 / born.solute_dielectric,
            solvent=1 / born.solvent_dielectric,
            kappa=born.kappa,
            surface=born.surface,
            cutoff=born.cutoff,
        )
    d = ff.dielectric
    return Tables(
        charge=coulomb * ff.charge[:, None] * ff.charge * allowed,
        sigma6=((ff.sigma[:, None] + ff.sigma) / 2) ** 6,
        epsilon=4 * (ff.epsilon[:, None] * ff.epsilon).sqrt() * allowed,
        cutoff=ff.cutoff,
        krf=(d - 1) / (2 * d + 1) / ff.cutoff**3 if ff.cutoff else 0.0,
        crf=3 * d / (2 * d + 1) / ff.cutoff if ff.cutoff else 0.0,
        born=solvent,
    )


def pairs(x: Float[Tensor, "batch atoms 3"], t: Tables, want_gradient: bool):
    """Energy in kJ/mol of each configuration, and its gradient (or None) in kJ/mol/nm."""
    dx, dy, dz = (x[:, :, None, k] - x[:, None, :, k] for k in range(3))
    r2 = dx * dx + dy * dy + dz * dz
    r2 = r2 + torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    inverse2 = 1 / r2
    inverse = inverse2.sqrt()
    energy, pull = _direct(t, r2, inverse, inverse2)
    if t.born is not None:
        solvent, solvent_pull = _solvent(t.born, r2, inverse, want_gradient)
        energy = energy + solvent
        if want_gradient:
            pull = pull + solvent_pull
    if not want_gradient:
        return energy, None
    return energy, torch.stack([(pull * dx).sum(2), (pull * dy).sum(2), (pull * dz).sum(2)], -1)


def _direct(t: Tables, r2: Matrix, inverse: Matrix, inverse2: Matrix):
    s6 = t.sigma6 * inverse2 * inverse2 * inverse2
    lj = t.epsilon * s6
    if t.cutoff:
        within = r2 < t.cutoff * t.cutoff
        charge = t.charge * within
        lj = lj * within
        energy = charge * (inverse + t.krf * r2 - t.crf)
        pull = charge * (2 * t.krf - inverse * inverse2) - lj * (12 * s6 - 6) * inverse2
    else:
        energy = t.charge * inverse
        pull = -energy * inverse2 - lj * (12 * s6 - 6) * inverse2
    return 0.5 * (energy + lj * (s6 - 1)).sum((1, 2)), pull


def _solvent(born: BornTables, r2: Matrix, inverse: Matrix, want_gradient: bool):
    r = r2 * inverse
    within = born.off_diagonal * (r2 < born.cutoff * born.cutoff) if born.cutoff else born.off_diagonal
    upper = r + born.other
    gap = r - born.other
    lower = torch.maximum(born.own.expand_as(gap), gap.abs())
    counted = within * (upper > born.own)
    il, iu = 1 / lower, 1 / upper
    reach = r - born.other * born.other * inverse
    log = torch.log(lower * iu)
    term = il - iu + 0.25 * reach * (iu * iu - il * il) + 0.5 * log * inverse
    integral = 0.5 * (term * counted).sum(2)

    rho = born.radius + born.offset
    psi = integral * born.radius
    if born.alpha or born.beta or born.gamma:
        tanh = torch.tanh(psi * (born.alpha + psi * (-born.beta + psi * born.gamma)))
        radius = 1 / (1 / born.radius - tanh / rho)
        slope = born.alpha + psi * (-2 * born.beta + psi * 3 * born.gamma)
        d_radius = radius.square() / rho * (1 - tanh.square()) * slope * born.radius
    else:
        radius = 1 / (1 / born.radius - integral)
        d_radius = radius.square()

    product = radius[:, :, None] * radius[:, None, :]
    decay = torch.exp(-r2 / (4 * product))
    f = (r2 + product * decay).sqrt()
    fi = 1 / f
    charge = born.charge * within
    shift = 1 / born.cutoff if born.cutoff else 0.0
    if born.kappa:
        screen = torch.exp(-born.kappa * f) * born.solvent
        tau = born.solute - screen
        screen0 = torch.exp(-born.kappa * radius) * born.solvent
        tau0 = born.solute - screen0
        de_df = charge * (tau * fi * fi - born.kappa * screen * (fi - shift))
        d_self = born.self_charge * (tau0 / radius - born.kappa * screen0) / radius
    else:
        tau = tau0 = torch.full_like(radius[:, :1, None], born.solute - born.solvent)
        tau0 = tau0[:, :, 0]
        de_df = tau * charge * fi * fi
        d_self = born.self_charge * tau0 / radius.square()
    energy = -0.5 * (tau * charge * (fi - shift)).sum((1, 2)) - (born.self_charge * tau0 / radius).sum(1)
    nonpolar = born.surface * (rho + 0.14) ** 2 * (rho / radius) ** 6
    energy = energy + nonpolar.sum(1)
    if not want_gradient:
        return energy, None

    de_df = de_df * fi  # dE/df / f
    # each unordered pair occurs twice in the sum, once for each member's radius
    d_b = (0.5 * de_df * decay * (radius[:, None, :] + r2 / (4 * radius[:, :, None]))).sum(2)
    d_integral = (d_b + d_self - 6 * nonpolar / radius) * d_radius
    dl = torch.where(gap.abs() > born.own, gap.sign(), torch.zeros_like(gap))
    d_term = iu * iu - dl * il * il + 0.25 * (1 + (born.other * inverse) ** 2) * (iu * iu - il * il)
    d_term = d_term + 0.5 * reach * (dl * il * il * il - iu * iu * iu)
    d_term = d_term + 0.5 * inverse * (dl * il - iu - log * inverse)
    chain = 0.5 * d_integral[:, :, None] * d_term * counted * inverse
    return energy, de_df * (1 - 0.25 * decay) + chain + chain.transpose(1, 2)
