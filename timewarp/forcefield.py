"""The tables of a molecular-mechanics force field, as tensors.

A chemist's force field is a sum over tables: harmonic bonds and angles, periodic torsions, charges,
Lennard-Jones sites and a generalized Born solvent. `ForceField` holds these tables for one molecule,
so that energies, charts and tokens can be computed where OpenMM is not installed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class GeneralizedBorn:
    """HCT/OBC implicit solvent; per-atom `radius` (intrinsic minus offset) and `scaled` radius in nm.

    Born radius: 1/B = 1/radius - tanh(alpha psi - beta psi^2 + gamma psi^3)/(radius + offset), psi = I radius
    (Onufriev, Bashford, Case 2004); with `alpha = beta = gamma = 0` it is 1/B = 1/radius - I (HCT).
    """

    radius: Float[Tensor, " atoms"]
    scaled: Float[Tensor, " atoms"]
    charge: Float[Tensor, " atoms"]
    offset: float = 0.009
    alpha: float = 0.8
    beta: float = 0.0
    gamma: float = 2.909125
    solute_dielectric: float = 1.0
    solvent_dielectric: float = 78.5
    kappa: float = 0.0  # 1/nm
    surface: float = 28.3919551  # kJ/mol/nm^2, ACE non-polar term; 0 for none
    coulomb: float = 138.935485  # kJ/mol nm/e^2
    cutoff: float = 0.0  # nm; 0 for none


@dataclass(frozen=True)
class ForceField:
    """Tables of one molecule: indices are atoms, lengths nm, energies kJ/mol, angles rad, charges e.

    Bond: k/2 (r - r0)^2. Angle: k/2 (theta - theta0)^2. Torsion: k (1 + cos(n phi - phase)).
    Exceptions replace the pair's Coulomb and Lennard-Jones terms (excluded pairs have zeros in them).
    `cutoff` 0 means none; otherwise Coulomb is the reaction field with `dielectric` outside.
    """

    bond_index: Int[Tensor, "bonds 2"]
    bond_length: Float[Tensor, " bonds"]
    bond_stiffness: Float[Tensor, " bonds"]
    angle_index: Int[Tensor, "angles 3"]
    angle_value: Float[Tensor, " angles"]
    angle_stiffness: Float[Tensor, " angles"]
    torsion_index: Int[Tensor, "torsions 4"]
    torsion_periodicity: Float[Tensor, " torsions"]
    torsion_phase: Float[Tensor, " torsions"]
    torsion_barrier: Float[Tensor, " torsions"]
    charge: Float[Tensor, " atoms"]
    sigma: Float[Tensor, " atoms"]
    epsilon: Float[Tensor, " atoms"]
    exception_index: Int[Tensor, "exceptions 2"]
    exception_charge: Float[Tensor, " exceptions"]  # e^2, the product
    exception_sigma: Float[Tensor, " exceptions"]
    exception_epsilon: Float[Tensor, " exceptions"]
    cutoff: float = 0.0  # nm
    dielectric: float = 1.0
    born: GeneralizedBorn | None = None

    def arrays(self) -> dict[str, Tensor]:
        """All tables as a flat mapping of tensors, to be saved; `from_arrays` reads it back."""
        flat = {f.name: torch.as_tensor(getattr(self, f.name)) for f in fields(self) if f.name != "born"}
        if self.born is not None:
            flat |= {f"born.{f.name}": torch.as_tensor(getattr(self.born, f.name)) for f in fields(self.born)}
        return flat

    @classmethod
    def from_arrays(cls, flat: dict[str, Tensor]) -> ForceField:
        """The inverse of `arrays`; keys that do not belong to a force field are ignored."""
        born = _read(GeneralizedBorn, flat, "born.") if "born.radius" in flat else None
        return replace(_read(cls, flat, ""), born=born)

    def permuted(self, order: Int[Tensor, " atoms"]) -> ForceField:
        """The same force field with atom `order[i]` of the old numbering at place i of the new one."""
        new = torch.empty_like(order)
        new[order] = torch.arange(len(order))
        change = {name: new[getattr(self, name)] for name in _INDEX} | {n: getattr(self, n)[order] for n in _ATOM}
        born = self.born
        if born is not None:
            born = replace(born, radius=born.radius[order], scaled=born.scaled[order], charge=born.charge[order])
        return replace(self, born=born, **change)


_INDEX = ("bond_index", "angle_index", "torsion_index", "exception_index")
_ATOM = ("charge", "sigma", "epsilon")


def _read(kind, flat, prefix):
    values = {}
    for f in fields(kind):
        if prefix + f.name in flat:
            value = torch.as_tensor(flat[prefix + f.name])
            values[f.name] = value.item() if value.ndim == 0 else value
    return kind(**values)
