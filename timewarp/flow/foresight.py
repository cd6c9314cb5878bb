"""What a torsion does to what comes after it: the energy of groups that later torsions place, with all that stands.

The curves of `Growth` end with the group that a torsion places itself, and do not know that a charge at the end of
its side chain is to meet another. Here the later groups are beads, put by a few random settings of the torsions in
between; the energies of the settings are averaged as Boltzmann weights. Scanning what may follow goes back to
Meirovitch 1982; here it is a feature, which the flow weighs as it learned to, so that it may be coarse.

| symbol | variable |
|---|---|
| m | setting |
| U_m(phi), softened by r^2 + s^2 | energies of the beads |
| -ln mean_m exp(-U_m), Lennard-Jones and electrostatic | curves[..., 0, :] |
| the same, electrostatic alone | curves[..., 1, :] |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timewarp import units
from timewarp.state import Molecule

SETTINGS = 4
SOFTENED = 0.25  # nm, s
SIZE = 0.34  # nm, of a bead of one heavy atom, as Lennard-Jones' sigma
DEPTH = 0.35  # kJ/mol, of a heavy atom and another


@dataclass(frozen=True)
class Beads:
    """Heavy atoms with their hydrogens, in placement order of the heavy ones.

    Attributes:
        heavy: places.
        charge: in e, of each with its hydrogens.
        radius: effective Born radius, nm.
    """

    heavy: Tensor
    charge: Float[Tensor, " heavy"]
    radius: Float[Tensor, " heavy"]

    @classmethod
    def of(cls, molecule: Molecule, order: Tensor, radii: Float[Tensor, " atoms"]) -> Beads:
        """Args:
        molecule: whose charges they are.
        order: atom at each place.
        radii: effective Born radii of its atoms, in the order of the molecule, nm.
        """
        light = molecule.elements == 1
        charge = molecule.forcefield.charge.clone()
        i, j = torch.as_tensor(molecule.bonds).T
        for hydrogen, other in (*zip(i.tolist(), j.tolist(), strict=True), *zip(j.tolist(), i.tolist(), strict=True)):
            if light[hydrogen] and not light[other]:
                charge[other] += molecule.forcefield.charge[hydrogen]
        heavy = (~light[order]).nonzero()[:, 0]
        return cls(heavy, charge[order][heavy], radii[order][heavy])


@dataclass(frozen=True)
class Foresight:
    """One torsion: the beads to come, and those that stand. Energies in kT.

    Attributes:
        standing: places.
        height: of the beads to come along the axis at angle 0, for each setting, nm.
        along: across it, towards the great-grandparent.
        across: across both.
        tables: sigma^6, 4 epsilon, q q, q q of the solvent, B B, each [to come, standing].
    """

    standing: Tensor
    height: Float[Tensor, "settings beads"]
    along: Float[Tensor, "settings beads"]
    across: Float[Tensor, "settings beads"]
    tables: tuple[Tensor, ...]

    def to(self, target: torch.dtype | torch.device | str) -> Foresight:
        """The same with its numbers of a type, or all of it on a device."""
        numbers = {"height": self.height, "along": self.along, "across": self.across}
        standing = self.standing if isinstance(target, torch.dtype) else self.standing.to(target)
        moved = {name: value.to(target) for name, value in numbers.items()}
        return Foresight(standing, **moved, tables=tuple(table.to(target) for table in self.tables))

    def curve(
        self,
        apart: Float[Tensor, "batch standing 3"],
        axes: Sequence[Float[Tensor, "batch 3"]],
        energies: Callable[..., Tensor],
        cosine: Float[Tensor, " angles"],
        sine: Float[Tensor, " angles"],
    ) -> Float[Tensor, "batch 2 angles"]:
        """The curves at these angles.

        Args:
            apart: what stands, from the torsion's parent.
            axes: e_x, e_y, e_z of the torsion.
            energies: of squared distances, as of `Growth`.
            cosine: of the angles.
            sine: of the angles.
        """
        u, v, h = ((apart * e[:, None]).sum(-1)[:, None, None] for e in axes)
        height, along, across = (t[None, :, :, None] for t in (self.height, self.along, self.across))
        a = (height - h).square() + along.square() + across.square() + u * u + v * v + SOFTENED**2
        b = -2 * (along * u + across * v)
        c = -2 * (along * v - across * u)
        found = energies(*(t.flatten(0, 1) for t in (a, b, c)), cosine, sine, *self.tables)
        clash, electric = found.unflatten(0, (len(apart), -1)).unbind(2)
        return log(len(self.height)) - torch.stack([clash + electric, electric], 2).neg().logsumexp(1)


def foreseen(
    number: int,
    owner: Tensor,
    moved: Bool[Tensor, " atoms"],
    axes: Sequence[Float[Tensor, "settings 3"]],
    settings: Float[Tensor, "settings atoms 3"],
    angle: Float[Tensor, " settings"],
    beads: Beads,
    molecule: Molecule,
    kT: float,
) -> Foresight | None:
    """What a torsion foresees; None if it places all that it moves, or nothing stands.

    Args:
        number: of the torsion.
        owner: the last torsion that moves each place, -1 for none.
        moved: places that this torsion moves.
        axes: e_x, e_y, e_z and the origin of its frame, in each setting.
        settings: positions in placement order, nm.
        angle: of the torsion in each setting.
        beads: of the molecule.
        molecule: whose solvent screens the charges.
        kT: kJ/mol.
    """
    place = owner[beads.heavy]
    stands = place < number
    groups = [(place == k) & moved[beads.heavy] for k in range(number + 1, int(owner.max()) + 1)]
    groups = [group for group in groups if bool(group.any())]
    if not groups or not bool(stands.any()):
        return None
    centres = torch.stack([settings[:, beads.heavy[group]].mean(1) for group in groups], 1)
    x, y, z, origin = axes
    apart = centres - origin[:, None]
    height, along, across = ((apart * e[:, None]).sum(-1) for e in (z, x, y))
    cosine, sine = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    along, across = along * cosine + across * sine, across * cosine - along * sine  # back to angle 0

    def each(values: Tensor) -> Tensor:
        return torch.stack([values[group].sum() for group in groups])

    count = each(torch.ones_like(beads.charge))
    charge, radius = each(beads.charge)[:, None], (each(beads.radius) / count)[:, None]
    width = torch.stack([_spread(settings[0, beads.heavy[group]]) for group in groups])[:, None]
    sigma2 = SIZE**2 + width**2 + SOFTENED**2
    shape = (len(groups), int(stands.sum()))
    product = charge * beads.charge[stands]
    born = molecule.forcefield.born
    share = 0.0 if born is None else 1 / born.solute_dielectric - 1 / born.solvent_dielectric
    tables = (
        (sigma2**3).expand(shape),
        (4 * DEPTH / kT * count[:, None]).expand(shape),
        units.COULOMB / kT * product,
        units.COULOMB / kT * share * product,
        radius * beads.radius[stands],
    )
    return Foresight(beads.heavy[stands], height, along, across, tuple(table.contiguous() for table in tables))


def _spread(positions: Float[Tensor, "atoms 3"]) -> Tensor:
    """Root mean square distance from the centre, nm."""
    return (positions - positions.mean(0)).square().sum(-1).mean().sqrt()
