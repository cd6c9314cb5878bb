"""Bonds, angles, torsions and impropers of a batch, with their gradient.

Positions are atoms-first, [atoms, batch, 3], so that a table's gather and scatter move whole rows.
Each function returns the energy (kJ/mol) of each configuration and adds its gradient to `gradient`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp import units
from timewarp.forcefield import ForceField
from timewarp.state import Molecule, Positions

AtomsFirst = Float[Tensor, "atoms batch 3"]


def bonds(x: AtomsFirst, ff: ForceField, gradient: AtomsFirst | None) -> Float[Tensor, " batch"]:
    i, j = ff.bond_index.unbind(1)
    d = x[i] - x[j]
    r = torch.linalg.vector_norm(d, dim=-1)
    stretch = r - ff.bond_length[:, None]
    pull = ff.bond_stiffness[:, None] * stretch
    if gradient is not None:
        g = (pull / r)[..., None] * d
        gradient.index_add_(0, i, g).index_add_(0, j, g, alpha=-1)
    return 0.5 * (pull * stretch).sum(0)


def angles(x: AtomsFirst, ff: ForceField, gradient: AtomsFirst | None) -> Float[Tensor, " batch"]:
    i, j, k = ff.angle_index.unbind(1)
    u, w = x[i] - x[j], x[k] - x[j]
    c = torch.linalg.cross(u, w)
    sine = torch.linalg.vector_norm(c, dim=-1).clamp_min(1e-8)
    bend = torch.atan2(sine, (u * w).sum(-1)) - ff.angle_value[:, None]
    pull = ff.angle_stiffness[:, None] * bend
    if gradient is not None:
        # d(theta)/dx_i = u x c / (|u|^2 |c|), d(theta)/dx_k = c x w / (|w|^2 |c|)
        gi = torch.linalg.cross(u, c) * (pull / (sine * (u * u).sum(-1)))[..., None]
        gk = torch.linalg.cross(c, w) * (pull / (sine * (w * w).sum(-1)))[..., None]
        gradient.index_add_(0, i, gi).index_add_(0, k, gk).index_add_(0, j, gi + gk, alpha=-1)
    return 0.5 * (pull * bend).sum(0)


class Dihedrals:
    """The dihedral angles of a table's rows, [rows, batch], in rad; and what a slope in them means for the atoms."""

    def __init__(self, x: AtomsFirst, index: Int[Tensor, "rows 4"]):
        self.atoms = i, j, k, l = index.unbind(1)  # noqa: E741
        self.b1, self.b2, self.b3 = b1, b2, b3 = x[j] - x[i], x[k] - x[j], x[l] - x[k]
        self.m, self.n = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
        self.length = torch.linalg.vector_norm(b2, dim=-1)
        self.angle = torch.atan2((b1 * self.n).sum(-1) * self.length, (self.m * self.n).sum(-1))

    def add(self, slope: Float[Tensor, "rows batch"], gradient: AtomsFirst) -> None:
        """Add dU/dx to `gradient`, where `slope` is dU/d(angle)."""
        i, j, k, l = self.atoms  # noqa: E741
        mm = (self.m * self.m).sum(-1).clamp_min(1e-12)
        nn = (self.n * self.n).sum(-1).clamp_min(1e-12)
        # Bekker's form (see Allen & Tildesley, appendix C)
        gi = (-slope * self.length / mm)[..., None] * self.m
        gl = (slope * self.length / nn)[..., None] * self.n
        p = ((self.b1 * self.b2).sum(-1) / self.length.square())[..., None]
        q = ((self.b3 * self.b2).sum(-1) / self.length.square())[..., None]
        s = p * gi - q * gl
        gradient.index_add_(0, i, gi).index_add_(0, l, gl)
        gradient.index_add_(0, j, gi + s, alpha=-1).index_add_(0, k, gl - s, alpha=-1)


def torsions(x: AtomsFirst, ff: ForceField, gradient: AtomsFirst | None) -> Float[Tensor, " batch"]:
    phi = Dihedrals(x, ff.torsion_index)
    argument = ff.torsion_periodicity[:, None] * phi.angle - ff.torsion_phase[:, None]
    if gradient is not None:
        phi.add(-(ff.torsion_barrier * ff.torsion_periodicity)[:, None] * torch.sin(argument), gradient)
    return (ff.torsion_barrier[:, None] * (1 + torch.cos(argument))).sum(0)


def impropers(x: AtomsFirst, ff: ForceField, gradient: AtomsFirst | None) -> Float[Tensor, " batch"]:
    phi = Dihedrals(x, ff.improper_index)
    away = phi.angle - ff.improper_value[:, None]
    away = away - 2 * math.pi * torch.round(away / (2 * math.pi))
    pull = ff.improper_stiffness[:, None] * away
    if gradient is not None:
        phi.add(pull, gradient)
    return 0.5 * (pull * away).sum(0)


def exceptions(x: AtomsFirst, ff: ForceField, coulomb: float, gradient: AtomsFirst | None) -> Float[Tensor, " batch"]:
    """Coulomb and Lennard-Jones of the pairs that the exceptions replace (the 1-4 pairs): no cutoff."""
    i, j = ff.exception_index.unbind(1)
    d = x[i] - x[j]
    inverse = torch.rsqrt((d * d).sum(-1))
    charge = coulomb * ff.exception_charge[:, None] * inverse
    s6 = (ff.exception_sigma[:, None] * inverse) ** 6
    lj = 4 * ff.exception_epsilon[:, None] * s6
    if gradient is not None:
        g = (-(charge + lj * (12 * s6 - 6)) * inverse * inverse)[..., None] * d
        gradient.index_add_(0, i, g).index_add_(0, j, g, alpha=-1)
    return (charge + lj * (s6 - 1)).sum(0)


class Bonded:
    """U_bonded/kT of a batch in float64, twice differentiable: the curvature that a chart is whitened with.

    The sum of bonds, angles, torsions and impropers; the maps, the 1-4 pairs and all other pairs are left out.
    """

    def __init__(self, molecule: Molecule, temperature: float = 310.0):
        self.forcefield = molecule.forcefield
        self.kT = units.kT(temperature)

    def __call__(self, positions: Positions) -> Float[Tensor, "*batch"]:
        x = positions.reshape(-1, *positions.shape[-2:]).transpose(0, 1)
        ff = self.forcefield
        energy = bonds(x, ff, None) + angles(x, ff, None) + torsions(x, ff, None)
        energy = energy + impropers(x, ff, None)
        return (energy / self.kT).reshape(positions.shape[:-2])
