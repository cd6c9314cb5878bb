"""What the flow is told of a molecule: physics and graph, never names.

An atom is described by its element, charge, Lennard-Jones and Born parameters, neighbours and rings, and by the
relaxed bond, angle and handedness of its place in the chart; a torsion by the four atoms that it turns about and by
the energy of its own torsion terms. All is in the chart's placement order, padded when several are stacked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import pi

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from timewarp import units
from timewarp.flow import tree
from timewarp.flow.chart import InternalChart
from timewarp.flow.geometry import dihedral
from timewarp.flow.pucker import STEP, UNIT
from timewarp.state import Molecule

ELEMENTS = (1, 6, 7, 8, 16)
HARMONICS = 6  # of a torsion's own energy, as features
FAR = 12  # graph distances from here on are alike
FEATURES = len(ELEMENTS) + 1 + 13
ROTOR = 72  # angles at which a rotor's energy is looked up


@dataclass(frozen=True)
class Tokens:
    """Static description of a molecule, or of a padded stack of them (a leading axis everywhere).

    Attributes:
        atoms: features.
        hops: bonds between atoms, at most `FAR`.
        real: False on padding.
        stiff: which of (bond, angle, dihedral) of an atom are stiff coordinates.
        torsion_atoms: (atom, parent, grandparent, great-grandparent) of each free torsion, as places.
        torsion_energy: U/kT of the torsion's own periodic terms at `grid` angles from -pi, of all its bonds for a ring.
        torsion_features: Fourier coefficients of that energy.
        torsion_hops: bonds between the torsions' axes.
        torsion_real: False on padding.
    """

    atoms: Float[Tensor, "*m atoms features"]
    hops: Int[Tensor, "*m atoms atoms"]
    real: Bool[Tensor, "*m atoms"]
    stiff: Bool[Tensor, "*m atoms 3"]
    torsion_atoms: Int[Tensor, "*m torsions 4"]
    torsion_energy: Float[Tensor, "*m torsions grid"]
    torsion_features: Float[Tensor, "*m torsions harmonics"]
    torsion_hops: Int[Tensor, "*m torsions torsions"]
    torsion_real: Bool[Tensor, "*m torsions"]

    @classmethod
    def of(cls, molecule: Molecule, chart: InternalChart, temperature: float, grid: int = 72) -> Tokens:
        """The tokens of one molecule in its chart."""
        order = chart.tree.order
        near = tree.neighbours(molecule)
        hops = torch.tensor(tree.distances(molecule)).clamp_max(FAR)
        ff, z = molecule.forcefield, molecule.elements
        zero = torch.zeros(molecule.atoms, dtype=torch.float64)
        ring = torch.tensor([any(tree.in_ring(near, i, j) for j in near[i]) for i in range(molecule.atoms)])
        hydrogens = torch.tensor([sum(int(z[j]) == 1 for j in near[i]) for i in range(molecule.atoms)])
        own = torch.stack(
            [
                *((z == e).double() for e in ELEMENTS),
                (~torch.isin(z, torch.tensor(ELEMENTS))).double(),
                ff.charge,
                10 * ff.sigma - 2.5,
                ff.epsilon,
                10 * ff.born.radius - 1.4 if ff.born else zero,
                10 * ff.born.scaled - 1.1 if ff.born else zero,
                torch.tensor([len(n) for n in near]).double() / 4,
                hydrogens.double() / 3,
                ring.double(),
            ],
            1,
        )[order]
        geometry = torch.where(chart.stiff, 0.0, chart.prepared)
        geometry[chart.stiff] = chart.mean.double()
        bend = geometry[:, 1]
        turn = torch.where(chart.stiff[:, 2], geometry[:, 2], torch.nan)
        turn[chart.puckers.amplitudes] = torch.nan
        placed = torch.stack(
            [
                torch.where(chart.stiff[:, 0], 20 * (geometry[:, 0] - 0.12), 0.0),
                torch.where(chart.stiff[:, 1], 4 * (bend - 1.95), 0.0),
                torch.sin(turn).nan_to_num(0.0),
                torch.cos(turn).nan_to_num(0.0),
                chart.free[:, 2].double(),
            ],
            1,
        )
        places = chart.place_of_torsion
        quads = torch.cat([places[:, None], chart.refs[places]], 1)
        energy = own_energy(molecule, chart, grid) / units.kT(temperature)
        n = torch.arange(1, HARMONICS + 1)
        angle = torch.arange(grid) * (2 * pi / grid) - pi
        waves = torch.cat([torch.cos(n[:, None] * angle), torch.sin(n[:, None] * angle)]).double()
        hops_placed = hops[order][:, order]
        axes = quads[:, 1:3]
        between = hops_placed[axes[:, None, :, None], axes[None, :, None, :]]
        return cls(
            atoms=torch.cat([own, placed], 1).float(),
            hops=hops_placed,
            real=torch.ones(molecule.atoms, dtype=torch.bool),
            stiff=chart.stiff,
            torsion_atoms=quads,
            torsion_energy=energy.float(),
            torsion_features=(energy @ waves.T * (2 / grid) / 4).float(),
            torsion_hops=between.amin((2, 3)) if len(places) else torch.zeros(0, 0, dtype=torch.long),
            torsion_real=torch.ones(len(places), dtype=torch.bool),
        )

    def blurred(self, width: float, rng: torch.Generator) -> Tokens:
        """The same molecules with noise on their features, N(0, width^2); padding stays zero."""

        def noise(like: Tensor) -> Tensor:
            return width * torch.randn(like.shape, generator=rng, device=rng.device).to(like)

        atoms = self.atoms + noise(self.atoms) * self.real[..., None]
        return replace(self, atoms=atoms, torsion_features=self.torsion_features * (1 + noise(self.torsion_features)))

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def own_energy(molecule: Molecule, chart: InternalChart, grid: int) -> Float[Tensor, "torsions grid"]:
    """Energy in kJ/mol of each torsion's own periodic terms, at equally spaced angles from -pi."""
    rings = dict(zip(chart.puckers.phases.tolist(), chart.tree.rings, strict=True))
    at = torch.arange(grid) * (2 * pi / grid) - pi
    rows = []
    for place in chart.place_of_torsion.tolist():
        if place in rings:
            rows.append(_ring_energy(molecule, rings[place].atoms, at))
        else:
            parent, up = (int(chart.tree.rows[place, k]) for k in range(2))
            rows.append(_turned(molecule, parent, up, at - float(chart.prepared[place, 2])))
    return torch.stack(rows) if rows else torch.zeros(0, grid, dtype=torch.float64)


def _ring_energy(molecule, atoms, phase):
    """The same of all bonds of a ring: their dihedrals are those of pseudorotation at amplitude 1."""
    total = torch.zeros(len(phase), dtype=torch.float64)
    for k in range(len(atoms)):
        a, p, q, r = (atoms[(k + n) % len(atoms)] for n in range(4))
        prepared = float(dihedral(*molecule.reference[[a, p, q, r]].double().unbind(0)))
        total += _turned(molecule, p, q, UNIT * torch.cos(phase + k * STEP) - prepared)
    return total


def _turned(molecule, parent, up, away):
    """The rotor's energy at angles away from the prepared one."""
    profile = torch.as_tensor(tree.rotor(molecule, parent, up, ROTOR))
    position = away.double() / (2 * pi / ROTOR) % ROTOR
    low = position.floor().long() % ROTOR
    share = position - position.floor()
    return profile[low] * (1 - share) + profile[(low + 1) % ROTOR] * share


def stacked(many: list[Tokens]) -> Tokens:
    """Several molecules as one padded stack."""
    return Tokens(**{f.name: pad_stack([getattr(t, f.name) for t in many]) for f in fields(Tokens)})


def pad_stack(parts: list[Tensor]) -> Tensor:
    """Stack tensors of one rank, padding each axis at its end with zeros (False)."""
    shape = [max(p.shape[k] for p in parts) for k in range(parts[0].ndim)]
    out = parts[0].new_zeros(len(parts), *shape)
    for row, part in zip(out, parts, strict=True):
        row[tuple(slice(0, s) for s in part.shape)] = part
    return out
