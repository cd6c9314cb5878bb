"""The constants of one molecule's potential, laid out for the kernel: made once, used for every batch.

Every column is [rows, 1], so that it broadcasts over a batch that is the innermost axis. Terms that depend on the
distance of two atoms alone (Coulomb and Lennard-Jones, the exceptions to them, harmonic bonds) are one row of `Pairs`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.forcefield import ForceField, GeneralizedBorn

Column = Float[Tensor, "rows 1"]


class Pairs(NamedTuple):
    """Columns over the unordered pairs of atoms: U = k/2 (r - r0)^2, and within the reach q/r + field r^2 - shift +
    repulsion/r^12 - attraction/r^6."""

    stiffness: Column
    length: Column
    charge: Column  # coulomb q_i q_j, or the exception's
    field: Column
    shift: Column
    repulsion: Column
    attraction: Column
    reach2: Column  # square of the cutoff, infinite for exceptions


class Spheres(NamedTuple):
    """Columns over the unordered pairs: own and scaled radius of both atoms, and coulomb q_i q_j."""

    own_i: Column
    own_j: Column
    scaled_i: Column
    scaled_j: Column
    charge: Column


class Atoms(NamedTuple):
    """Columns over the atoms, for the Born radii and the energies of single atoms."""

    own: Column
    inverse_own: Column
    inverse_rho: Column
    alpha: Column
    beta: Column
    gamma: Column
    charge: Column  # coulomb q_i^2 / 2
    nonpolar: Column  # kJ/mol nm^6


class Solvent(NamedTuple):
    """1/eps of solute and solvent, kappa (1/nm), the square of the cutoff (nm^2) and 1/cutoff: each [1]."""

    solute: Tensor
    solvent: Tensor
    kappa: Tensor
    reach2: Tensor
    shift: Tensor


class Born(NamedTuple):
    """A generalized Born solvent; the necks are those of i beside j, then those of j beside i."""

    pairs: Float[Tensor, "columns pairs 1"]  # Spheres
    atoms: Float[Tensor, "columns atoms 1"]  # Atoms
    numbers: Float[Tensor, "columns 1"]  # Solvent
    neck: Float[Tensor, "3 2 pairs 1"] | None  # depth, position, limit
    rescaled: bool  # OBC and GBn; else HCT
    salt: bool


class Tables(NamedTuple):
    """All constants. The tables of partners have the atoms last, for the compiler to run along the batch.

    The pairs are those of each atom with the next, of each with the next but one, and so on around the circle. With an
    even number of atoms, the last such turn meets every pair twice, and the second has zeros for constants.
    """

    ends: Int[Tensor, "2 pairs"]
    partners: Int[Tensor, "others atoms"]  # the other atoms of each atom
    shared: Int[Tensor, "others atoms"]  # the pair of the two, a row of `pairs`
    ordered: Int[Tensor, "others atoms"]  # the same in a table of (i, j) followed by (j, i)
    reverse: Int[Tensor, "others atoms"]  # where that table has the partner's
    pairs: Float[Tensor, "columns pairs 1"]  # Pairs
    born: Born | None
    angle_index: Int[Tensor, "3 angles"]
    angle: Float[Tensor, "2 angles 1"]  # value, stiffness
    torsion_index: Int[Tensor, "4 torsions"]
    torsion: Float[Tensor, "2 periods torsions 1"]  # of cos(n phi) and sin(n phi), n = 1, 2, ...
    slots: Int[Tensor, "most atoms"]  # rows of the forces of angles and torsions that an atom feels
    constant: Float[Tensor, " 1"]  # kJ/mol


PERIODS = 6  # at least so many, for all molecules to share one compilation


def tables(ff: ForceField, coulomb: float, dtype: torch.dtype, device: torch.device | str) -> Tables:
    """The constants of a force field, but for its maps and impropers."""
    double = ff.to(torch.float64, "cpu")
    n = len(ff.charge)
    atoms = torch.arange(n)
    turns = torch.arange(1, n // 2 + 1)[:, None]
    ends = torch.stack([atoms.expand(len(turns), n), (atoms + turns) % n]).flatten(1)
    twice = (turns * 2 == n) & (atoms >= turns)
    once = ~twice.flatten()
    row = torch.zeros(n, n, dtype=torch.long)
    row[ends[0, once], ends[1, once]] = row[ends[1, once], ends[0, once]] = torch.arange(len(once))[once]
    partners = (atoms + torch.arange(1, n)[:, None]) % n
    shared = row[partners, atoms]
    first = ends[0, shared] == atoms
    pairs, constant = _pairs(double, coulomb, ends, row, once)
    torsion_index, torsion, more = _torsions(double)
    found = Tables(
        ends=ends,
        partners=partners,
        shared=shared,
        ordered=shared + ends.shape[1] * ~first,
        reverse=shared + ends.shape[1] * first,
        pairs=pairs,
        born=None if double.born is None else _born(double.born, ends, once),
        angle_index=double.angle_index.T,
        angle=torch.stack([double.angle_value, double.angle_stiffness])[..., None],
        torsion_index=torsion_index,
        torsion=torsion,
        slots=_slots(n, torch.cat([*double.angle_index.T, *torsion_index])),
        constant=(constant + more)[None],
    )
    return _moved(found, dtype, device)


def _pairs(ff: ForceField, coulomb: float, ends, row, once):
    i, j = ends
    d = ff.dielectric
    charge = coulomb * ff.charge[i] * ff.charge[j] * once
    one = torch.ones_like(charge)
    s6, depth = ((ff.sigma[i] + ff.sigma[j]) / 2) ** 6, 4 * (ff.epsilon[i] * ff.epsilon[j]).sqrt() * once
    found = Pairs(
        stiffness=0 * one,
        length=0 * one,
        charge=charge,
        field=charge * ((d - 1) / (2 * d + 1) / ff.cutoff**3 if ff.cutoff else 0.0),
        shift=charge * (3 * d / (2 * d + 1) / ff.cutoff if ff.cutoff else 0.0),
        repulsion=depth * s6 * s6,
        attraction=depth * s6,
        reach2=one * (ff.cutoff**2 if ff.cutoff else torch.inf),
    )
    there = row[ff.exception_index[:, 0], ff.exception_index[:, 1]]
    s6, depth = ff.exception_sigma**6, 4 * ff.exception_epsilon
    found.charge[there] = coulomb * ff.exception_charge
    found.field[there] = found.shift[there] = 0.0
    found.repulsion[there], found.attraction[there] = depth * s6 * s6, depth * s6
    found.reach2[there] = torch.inf
    # springs side by side are one spring and a constant
    there = row[ff.bond_index[:, 0], ff.bond_index[:, 1]]
    pull = torch.zeros_like(one).index_add_(0, there, ff.bond_stiffness * ff.bond_length)
    found.stiffness.index_add_(0, there, ff.bond_stiffness)
    found.length.copy_(torch.where(found.stiffness != 0, pull / found.stiffness, 0.0))
    strain = ff.bond_stiffness * (ff.bond_length - found.length[there]) * ff.bond_length
    return torch.stack(found)[..., None], 0.5 * strain.sum()


def _born(born: GeneralizedBorn, ends, once) -> Born:
    i, j = ends
    one = torch.ones_like(born.radius)
    rho = born.radius + born.offset
    rescaled = any(bool(torch.as_tensor(k).any()) for k in (born.alpha, born.beta, born.gamma))
    spheres = Spheres(
        own_i=born.radius[i],
        own_j=born.radius[j],
        scaled_i=born.scaled[i],
        scaled_j=born.scaled[j],
        charge=born.coulomb * born.charge[i] * born.charge[j] * once,
    )
    atoms = Atoms(
        own=born.radius,
        inverse_own=1 / born.radius,
        inverse_rho=1 / rho,
        alpha=born.alpha * one,
        beta=born.beta * one,
        gamma=born.gamma * one,
        charge=0.5 * born.coulomb * born.charge.square(),
        nonpolar=born.surface * (rho + 0.14) ** 2 * rho**6,
    )
    numbers = Solvent(
        solute=one[:1] / born.solute_dielectric,
        solvent=one[:1] / born.solvent_dielectric,
        kappa=one[:1] * born.kappa,
        reach2=one[:1] * (born.cutoff**2 if born.cutoff else torch.inf),
        shift=one[:1] * (1 / born.cutoff if born.cutoff else 0.0),
    )
    neck = None
    if born.neck_depth is not None:
        matrices = [m for m in (born.neck_depth, born.neck_position, born.neck_limit) if m is not None]
        neck = torch.stack([torch.stack([m[i, j], m[j, i]]) for m in matrices])[..., None]
    return Born(
        torch.stack(spheres)[..., None], torch.stack(atoms)[..., None], torch.stack(numbers), neck, rescaled,
        born.kappa != 0,
    )  # fmt: skip


def _torsions(ff: ForceField):
    """The atoms of each torsion once, the factors of cos(n phi) and sin(n phi), and the sum of what is constant."""
    index, place = ff.torsion_index.unique(dim=0, return_inverse=True)
    period = ff.torsion_periodicity.long()
    most = max(PERIODS, *period.tolist()) if len(period) else PERIODS
    waves = torch.stack([torch.cos(ff.torsion_phase), torch.sin(ff.torsion_phase)]) * ff.torsion_barrier
    found = torch.zeros(2, most + 1, len(index), dtype=waves.dtype)
    for parts, wave in zip(found, waves):
        parts.index_put_((period, place), wave, accumulate=True)
    kept = (found[:, 1:] != 0).any(1).any(0)
    constant = ff.torsion_barrier.sum() + found[0, 0].sum()
    return index[kept].T, found[:, 1:, kept, None], constant


def _slots(atoms: int, owners: Tensor) -> Tensor:
    """For each atom the rows that it owns, and then the row after the last, which is empty."""
    order = owners.argsort(stable=True)
    count = torch.bincount(owners, minlength=atoms)
    start = count.cumsum(0) - count
    slots = torch.full((max(2, int(count.max())), atoms), len(owners))
    slots[torch.arange(len(owners)) - start[owners[order]], owners[order]] = order
    return slots


def _moved(found, dtype, device):
    """The same with every tensor contiguous, the reals in the precision `dtype`, all on `device`."""
    if isinstance(found, Tensor):
        return found.contiguous().to(device=device, dtype=dtype if found.is_floating_point() else None)
    return type(found)(*(_moved(value, dtype, device) for value in found)) if isinstance(found, tuple) else found
