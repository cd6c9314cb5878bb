"""Several molecules in one padded batch of replicas, as `Langevin` takes them.

On a CPU a batch of one molecule is as fast as one of many, so that each molecule's replicas are evaluated by its own
potential, one after the other; the padding is never computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.energy import Potential
from timewarp.flow.tokens import pad_stack
from timewarp.mcmc.dynamics import repartitioned
from timewarp.state import Molecule, Positions


@dataclass(frozen=True)
class Padded:
    """The potential of `replicas` of each molecule side by side: chain `molecule * replicas + replica`.

    Attributes:
        molecules: in their order.
        potentials: one each.
        replicas: of each molecule.
    """

    molecules: tuple[Molecule, ...]
    potentials: tuple[Potential, ...]
    replicas: int

    @classmethod
    def of(cls, molecules: Sequence[Molecule], replicas: int, temperature: float = 310.0, **how) -> Padded:
        """With the batched potential of each molecule, see `Potential` for `how`."""
        return cls(tuple(molecules), tuple(Potential(m, temperature, **how) for m in molecules), replicas)

    @property
    def atoms(self) -> int:
        return max(molecule.atoms for molecule in self.molecules)

    def masses(self) -> Float[Tensor, "chains atoms"]:
        """amu, hydrogens repartitioned; infinite for the padding, which `Langevin` then leaves alone."""
        rows = [repartitioned(m) for m in self.molecules]
        filled = torch.full((len(rows), self.atoms), torch.inf, dtype=rows[0].dtype)
        for row, own in zip(filled, rows, strict=True):
            row[: len(own)] = own
        return filled.repeat_interleave(self.replicas, 0)

    def start(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "chains atoms 3"]:
        """The prepared structures in nm, padding at the origin."""
        return pad_stack([m.reference.to(dtype) for m in self.molecules]).repeat_interleave(self.replicas, 0)

    def kilojoules(self, positions: Positions, gradient: bool = False) -> tuple[Tensor, Tensor | None]:
        """U in kJ/mol and, if asked for, dU/dx in kJ/mol/nm, 0 for the padding."""
        energies, slope = [], torch.zeros_like(positions) if gradient else None
        for number, (molecule, potential) in enumerate(zip(self.molecules, self.potentials, strict=True)):
            own = slice(number * self.replicas, (number + 1) * self.replicas)
            energy, part = potential.kilojoules(positions[own, : molecule.atoms], gradient)
            energies.append(energy)
            if slope is not None and part is not None:
                slope[own, : molecule.atoms] = part.to(slope.dtype)
        return torch.cat(energies), slope
