"""What the force field says of each pair of a molecule's atoms: matrices for closed forms of the pairs' energy."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.forcefield import GeneralizedBorn
from timewarp.state import Molecule

CLOSEST = 0.08**2  # nm^2, of two atoms: closer is no worse


def pair_tables(molecule: Molecule, order: Tensor, kT: float) -> list[Tensor]:
    """Pair matrices in placement order: sigma^6, 4 epsilon, q q, q q of the solvent, B B; energies in kT."""
    ff = molecule.forcefield
    sigma6 = ((ff.sigma[:, None] + ff.sigma) / 2) ** 6
    epsilon = 4 * (ff.epsilon[:, None] * ff.epsilon).sqrt()
    charge = units.COULOMB * ff.charge[:, None] * ff.charge
    i, j = ff.exception_index.unbind(1)
    for a, b in ((i, j), (j, i)):
        sigma6[a, b] = ff.exception_sigma**6
        epsilon[a, b] = 4 * ff.exception_epsilon
        charge[a, b] = units.COULOMB * ff.exception_charge
    if ff.born is None:
        born, radii = torch.zeros_like(charge), torch.ones_like(ff.charge)
    else:
        share = 1 / ff.born.solute_dielectric - 1 / ff.born.solvent_dielectric
        born = share * ff.born.coulomb * ff.born.charge[:, None] * ff.born.charge
        radii = born_radii(ff.born, molecule.reference)
    tables = [sigma6, epsilon / kT, charge / kT, born / kT, radii[:, None] * radii]
    return [table[order][:, order] for table in tables]


def born_radii(born: GeneralizedBorn, positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, " atoms"]:
    """Born radii in nm of one configuration, without a neck: Hawkins, Cramer, Truhlar 1996, and Onufriev 2004."""
    r = torch.cdist(positions.double(), positions.double()) + torch.eye(len(positions), dtype=torch.float64)
    own, other = born.radius[:, None], born.scaled[None, :]
    upper, lower = r + other, torch.maximum((r - other).abs(), own)
    term = 1 / lower - 1 / upper + 0.25 * (r - other * other / r) * (1 / upper**2 - 1 / lower**2)
    term = term + 0.5 * torch.log(lower / upper) / r
    counted = (upper > own) & ~torch.eye(len(r), dtype=torch.bool)
    psi = 0.5 * (term * counted).sum(1) * born.radius
    scale = torch.tanh(psi * (born.alpha + psi * (-born.beta + psi * born.gamma)))
    if not bool(torch.as_tensor(born.alpha).any()):
        return 1 / (1 / born.radius - psi / born.radius)
    return 1 / (1 / born.radius - scale / (born.radius + born.offset))
