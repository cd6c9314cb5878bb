"""What stays and what moves: a `Molecule` is fixed during sampling, a `State` is one point of the chain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from timewarp.forcefield import ForceField

Positions = Float[Tensor, "*batch atoms 3"]  # nm


@dataclass(frozen=True)
class Molecule:
    """A molecule: its atoms, its covalent graph, its force field and the prepared geometry.

    Attributes:
        elements: atomic numbers.
        masses: amu.
        bonds: covalent bonds, as pairs of atoms.
        reference: prepared geometry in nm; chirality and cis/trans are read from it, never from names.
        forcefield: the tables of the potential.
    """

    elements: Int[Tensor, " atoms"]
    masses: Float[Tensor, " atoms"]
    bonds: Int[Tensor, "bonds 2"]
    reference: Float[Tensor, "atoms 3"]
    forcefield: ForceField

    @property
    def atoms(self) -> int:
        return len(self.elements)

    def arrays(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `from_arrays` reads it back."""
        own = {name: getattr(self, name) for name in ("elements", "masses", "bonds", "reference")}
        return own | {f"forcefield.{k}": v for k, v in self.forcefield.arrays().items()}

    @classmethod
    def from_arrays(cls, flat: dict[str, Tensor]) -> Molecule:
        """The inverse of `arrays`."""
        tables = {k.removeprefix("forcefield."): v for k, v in flat.items() if k.startswith("forcefield.")}
        own = {name: torch.as_tensor(flat[name]) for name in ("elements", "masses", "bonds", "reference")}
        return cls(forcefield=ForceField.from_arrays(tables), **own)

    def permuted(self, order: Int[Tensor, " atoms"]) -> Molecule:
        """The same molecule in another atom order: atom `order[i]` goes to place i."""
        new = torch.empty_like(order)
        new[order] = torch.arange(len(order))
        return Molecule(
            elements=self.elements[order],
            masses=self.masses[order],
            bonds=new[self.bonds],
            reference=self.reference[order],
            forcefield=self.forcefield.permuted(order),
        )


@dataclass(frozen=True)
class State:
    """One configuration or a batch: positions in nm and auxiliary velocities, N(0, 1) at equilibrium.

    The velocities are not physical. `velocities` has the shape of the positions, with `channels` in
    place of 3 (0 where the flow uses none).
    """

    positions: Float[Tensor, "*batch atoms 3"]
    velocities: Float[Tensor, "*batch atoms channels"]

    @classmethod
    def at(cls, positions: Positions, channels: int = 0, rng: torch.Generator | None = None) -> State:
        """The state at these positions with fresh velocities."""
        shape = (*positions.shape[:-1], channels)
        return cls(positions, torch.randn(shape, generator=rng, dtype=positions.dtype, device=positions.device))

    def refreshed(self, rng: torch.Generator) -> State:
        """The same positions with velocities drawn anew from N(0, 1)."""
        return State.at(self.positions, self.velocities.shape[-1], rng)

    def __getitem__(self, index) -> State:
        return State(self.positions[index], self.velocities[index])

    def where(self, mask: Bool[Tensor, "*batch"], other: State) -> State:
        """This state where `mask` holds, `other` elsewhere."""
        return replace(
            self,
            positions=torch.where(mask[..., None, None], self.positions, other.positions),
            velocities=torch.where(mask[..., None, None], self.velocities, other.velocities),
        )
