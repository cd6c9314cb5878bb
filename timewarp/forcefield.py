"""The tables of a molecular-mechanics force field, as tensors.

A chemist's force field is a sum over tables: harmonic bonds, angles and impropers, periodic torsions, maps over
two torsions, charges, Lennard-Jones sites and a generalized Born solvent. `ForceField` holds these tables for one
molecule, so that energies, charts and tokens can be computed where OpenMM is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _none(*columns: int, kind: torch.dtype = torch.float64) -> Callable[[], Tensor]:
    """What makes a table without rows."""
    return lambda: torch.zeros(0, *columns, dtype=kind)


@dataclass(frozen=True)
class GeneralizedBorn:
    """Implicit solvent (HCT, OBC, GBn, GBn2); per-atom `radius` (intrinsic minus offset) and `scaled` radius in nm.

    Born radius: 1/B = 1/radius - tanh(alpha psi - beta psi^2 + gamma psi^3)/(radius + offset), psi = I radius
    (Onufriev, Bashford, Case 2004); with `alpha = beta = gamma = 0` it is 1/B = 1/radius - I (HCT).
    The three may differ from atom to atom (GBn2). GBn and GBn2 add to the Born integral I_i of each atom the necks
    sum_j m_ij / (1 + 100 (r - d_ij)^2 + 0.3e6 (r - d_ij)^6), r = r_ij in nm, of the atoms j nearer than l_ij and the
    cutoff: `neck_depth` m (1/nm, 0 on the diagonal), `neck_position` d (nm) and `neck_limit` l (nm), all of them or
    none. The matrices need not be symmetric (Mongan, Simmerling, McCammon, Case, Onufriev 2007).
    """

    radius: Float[Tensor, " atoms"]
    scaled: Float[Tensor, " atoms"]
    charge: Float[Tensor, " atoms"]
    offset: float = 0.009
    alpha: float | Float[Tensor, " atoms"] = 0.8
    beta: float | Float[Tensor, " atoms"] = 0.0
    gamma: float | Float[Tensor, " atoms"] = 2.909125
    solute_dielectric: float = 1.0
    solvent_dielectric: float = 78.5
    kappa: float = 0.0  # 1/nm
    surface: float = 28.3919551  # kJ/mol/nm^2, ACE non-polar term; 0 for none
    coulomb: float = 138.935485  # kJ/mol nm/e^2
    cutoff: float = 0.0  # nm; 0 for none
    neck_depth: Float[Tensor, "atoms atoms"] | None = None
    neck_position: Float[Tensor, "atoms atoms"] | None = None
    neck_limit: Float[Tensor, "atoms atoms"] | None = None

    def permuted(self, order: Int[Tensor, " atoms"]) -> GeneralizedBorn:
        """The same solvent with atom `order[i]` of the old numbering at place i of the new one."""
        change: dict[str, Any] = {}
        for name, value in _tensors(self).items():
            change[name] = value[order] if value.ndim == 1 else value[order][:, order]
        return replace(self, **change)


@dataclass(frozen=True)
class ForceField:
    """Tables of one molecule: indices are atoms, lengths nm, energies kJ/mol, angles rad, charges e.

    Bond: k/2 (r - r0)^2. Angle: k/2 (theta - theta0)^2. Torsion: k (1 + cos(n phi - phase)).
    Improper: k/2 (phi - phi0)^2, the difference taken within half a turn.
    Map: the first four atoms of `map_index` have the torsion phi and the last four psi; U is the periodic bicubic
    spline through `map_energy[map_kind]`, whose entry [a, b] is U at phi = 2 pi a / size, psi = 2 pi b / size.
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
    improper_index: Int[Tensor, "impropers 4"] = field(default_factory=_none(4, kind=torch.long))
    improper_value: Float[Tensor, " impropers"] = field(default_factory=_none())
    improper_stiffness: Float[Tensor, " impropers"] = field(default_factory=_none())
    map_index: Int[Tensor, "mapped 8"] = field(default_factory=_none(8, kind=torch.long))
    map_kind: Int[Tensor, " mapped"] = field(default_factory=_none(kind=torch.long))
    map_energy: Float[Tensor, "maps size size"] = field(default_factory=_none(0, 0))

    def arrays(self) -> dict[str, Tensor]:
        """All tables as a flat mapping of tensors, to be saved; `from_arrays` reads it back."""
        flat = _flat(self)
        return flat if self.born is None else flat | {f"born.{k}": v for k, v in _flat(self.born).items()}

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
        return replace(self, born=self.born and self.born.permuted(order), **change)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> ForceField:
        """The same tables elsewhere: the reals in the precision `dtype`, all on `device`."""

        def moved(tables):
            new = {name: value.to(device) for name, value in _tensors(tables).items()}
            return replace(tables, **{n: v.to(dtype) if v.is_floating_point() else v for n, v in new.items()})

        return replace(moved(self), born=self.born and moved(self.born))


_INDEX = ("bond_index", "angle_index", "torsion_index", "exception_index", "improper_index", "map_index")
_ATOM = ("charge", "sigma", "epsilon")


def _tensors(tables) -> dict[str, Tensor]:
    return {f.name: v for f in fields(tables) if isinstance(v := getattr(tables, f.name), Tensor)}


def _flat(tables) -> dict[str, Tensor]:
    values = {f.name: getattr(tables, f.name) for f in fields(tables) if f.name != "born"}
    exact = {name: torch.tensor(v, dtype=torch.float64) if isinstance(v, float) else v for name, v in values.items()}
    return {name: torch.as_tensor(value) for name, value in exact.items() if value is not None}


def _read(kind, flat, prefix):
    values = {}
    for f in fields(kind):
        if prefix + f.name in flat:
            value = torch.as_tensor(flat[prefix + f.name])
            values[f.name] = value.item() if value.ndim == 0 else value
    return kind(**values)
