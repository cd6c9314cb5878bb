"""What a torsion does to the atoms that it places: their energy with all that stand already, at every angle.

The torsions are drawn one after another; each places a rigid group of atoms. With the stiff coordinates at the
chart's mean, the distance of an atom of the group to one that stands is known at every angle, and so is the energy of
the group: the conditional that configurational-bias Monte Carlo grows a chain with (Siepmann and Frenkel 1992), here
what the flow starts from and corrects. The Born radii are those of the prepared structure.

| symbol | variable |
|---|---|
| (h, rho, alpha) an atom about the torsion's axis | height, radius, azimuth |
| r^2(phi) = A + B cos phi + C sin phi | square |
| U_LJ(phi), tempered: t + t ln(1 + (U - t)/t) above t | curves[..., 0, :] |
| U_el(phi), Coulomb and generalized Born | curves[..., 1, :] |
| what later torsions place (`Foresight`) | curves[..., 2:, :] |
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.flow.chart import InternalChart
from timewarp.flow.foresight import SETTINGS, Beads, Foresight, foreseen
from timewarp.flow.pair_curves import ANGLES, energies, made_for, sums, tempered
from timewarp.flow.pair_tables import born_radii, pair_tables
from timewarp.flow.ring_growth import AT_ONCE, RingStep
from timewarp.flow.tokens import own_energy
from timewarp.state import Molecule

PAIRS = 2  # curves of the pairs of a torsion's own group
CHANNELS = PAIRS + 2


@dataclass(frozen=True)
class Step:
    """One torsion: where its group goes, and the pairs that it makes. Energies in kT."""

    axis: Tensor  # places (parent, grandparent, great-grandparent)
    group: Tensor  # places
    standing: Tensor  # places
    height: Tensor  # of the group along the axis, nm
    along: Tensor  # of the group across it, at angle 0: towards the great-grandparent
    across: Tensor
    sigma6: Tensor  # [group, standing]
    epsilon: Tensor
    charge: Tensor
    born: Tensor  # q_i q_j (1 - 1/80) of the solvent's term
    reach: Tensor  # B_i B_j

    def to(self, device: torch.device | str) -> Step:
        return Step(**{f.name: getattr(self, f.name).to(device) for f in fields(Step)})


class Growth:
    """The curves of one molecule.

    Args:
        molecule: its force field's pairs are used; bonded terms are left to the torsion's own energy.
        chart: of the molecule.
        temperature: K.
        compiled: fuse the loops (takes a C++ compiler and some seconds, once for all molecules).
    """

    def __init__(self, molecule: Molecule, chart: InternalChart, temperature: float, compiled: bool = False):
        order = chart.tree.order.cpu()
        angles = torch.zeros(1, chart.torsions, dtype=chart.dtype)
        stiff = torch.zeros(1, chart.stiffs, dtype=chart.dtype)
        still = chart.to("cpu") if chart.root.is_cuda else chart
        frame = still.inverse(angles, stiff)[0][0].double()[order]
        kT = units.kT(temperature)
        pairs, ones = pair_tables(molecule, order, kT), torch.ones(molecule.atoms, dtype=torch.float64)
        owner = _owners(still)
        self.base = (owner < 0).nonzero()[:, 0]
        self.energies = made_for(chart.dtype) if compiled else energies
        self.start = frame.to(chart.dtype)
        grid = torch.arange(ANGLES, dtype=chart.dtype) * (2 * pi / ANGLES) - pi
        self.cosine, self.sine = torch.cos(grid), torch.sin(grid)
        rings = {place: ring for ring, place in enumerate(still.puckers.phases.tolist())}

        def step(number: int, place: int) -> Step | RingStep:
            if place not in rings:
                return _step(still.refs[place], number, owner, frame, pairs, chart.dtype)
            axes = [t[0] for t in _axes(frame[None], still.refs[place])]
            group, standing = (owner == number).nonzero()[:, 0], (owner < number).nonzero()[:, 0]
            return RingStep.of(still, rings[place], group, standing, frame, axes, pairs, grid)

        places = still.place_of_torsion.tolist()
        self.steps = [step(number, place) for number, place in enumerate(places)]
        settings, self.settings = _settings(molecule, still, kT)
        born = molecule.forcefield.born
        beads = Beads.of(molecule, order, ones if born is None else born_radii(born, molecule.reference))
        self.foresights: list[Foresight | None] = [None] * len(places)
        for number, place in enumerate(places):
            if place not in rings:
                axes = _axes(settings, still.refs[place])
                moved = still.below[1][place].cpu() > 0
                found = foreseen(number, owner, moved, axes, settings, self.settings[:, number], beads, molecule, kT)
                self.foresights[number] = found and found.to(chart.dtype)

    def to(self, device: torch.device | str) -> Growth:
        """The same with its tensors on a device."""
        new = copy.copy(self)
        new.steps = [step.to(device) for step in self.steps]
        new.foresights = [sight and sight.to(device) for sight in self.foresights]
        for name in ("base", "start", "cosine", "sine"):
            setattr(new, name, getattr(self, name).to(device))
        return new

    def fuse(self) -> None:
        """Compile the loops from here on."""
        self.energies = made_for(self.start.dtype)

    def begin(self, batch: int) -> Float[Tensor, "batch atoms 3"]:
        """Positions in placement order, of which those that no torsion moves are right."""
        return self.start.expand(batch, -1, -1).clone()

    def curve(self, number: int, placed: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch kinds angles"]:
        """U/kT of a torsion's group, and of what is to come, with what stands, at `ANGLES` angles from -pi."""
        step, sight = self.steps[number], self.foresights[number]
        x, y, z, origin = _axes(placed, step.axis)
        own = self._own(step, placed, (x, y, z, origin))
        if sight is None:
            return torch.cat([own, own.new_zeros(len(placed), CHANNELS - PAIRS, ANGLES)], 1)
        apart = placed[:, sight.standing] - origin[:, None]
        return torch.cat([own, sight.curve(apart, (x, y, z), self.energies, self.cosine, self.sine)], 1)

    def _own(self, step: Step | RingStep, placed: Tensor, axes: Sequence[Tensor]) -> Tensor:
        """The part of the group that the torsion places itself."""
        if step.standing.numel() == 0:
            return placed.new_zeros(len(placed), PAIRS, ANGLES)
        x, y, z, origin = axes
        apart = placed[:, step.standing] - origin[:, None]
        if isinstance(step, RingStep):
            local = apart @ torch.stack([x, y, z], -1)
            inner = sums(step.inner_square, *step.inner)
            at_once = len(local) if local.is_cuda else AT_ONCE
            parts = [sums(step.square(part), *step.tables) for part in local.split(at_once)]
            clash, electric = (torch.cat(part) + own for part, own in zip(zip(*parts, strict=True), inner, strict=True))
            return torch.stack([tempered(clash), electric], 1)
        h, u, v = ((apart * e[:, None]).sum(-1)[:, None] for e in (z, x, y))
        height, along, across = step.height[:, None], step.along[:, None], step.across[:, None]
        a = (height - h).square() + along.square() + across.square() + u * u + v * v
        b = -2 * (along * u + across * v)
        c = -2 * (along * v - across * u)
        tables = (step.sigma6, step.epsilon, step.charge, step.born, step.reach)
        return self.energies(a, b, c, self.cosine, self.sine, *tables)

    def place(
        self, number: int, placed: Float[Tensor, "batch atoms 3"], angle: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch atoms 3"]:
        """The same positions with the torsion's group at an angle."""
        step = self.steps[number]
        x, y, z, origin = _axes(placed, step.axis)
        if isinstance(step, RingStep):
            group = origin[:, None] + step.at(angle) @ torch.stack([x, y, z], -2)
            return placed.index_copy(1, step.group, group)
        cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
        along, across = step.along * cos - step.across * sin, step.along * sin + step.across * cos
        group = origin[:, None] + step.height[:, None] * z[:, None]
        group = group + along[..., None] * x[:, None] + across[..., None] * y[:, None]
        return placed.index_copy(1, step.group, group)

    def curves(self, torsions: Float[Tensor, "batch torsions"]) -> Float[Tensor, "batch torsions kinds angles"]:
        """The curve of each torsion, given those before it."""
        placed, found = self.begin(len(torsions)), []
        for number in range(len(self.steps)):
            found.append(self.curve(number, placed))
            placed = self.place(number, placed, torsions[:, number].to(placed.dtype))
        return torch.stack(found, 1) if found else placed.new_zeros(len(torsions), 0, CHANNELS, ANGLES)


def _settings(molecule, chart, kT) -> tuple[Tensor, Tensor]:
    """(positions in placement order, torsions) of the few settings that `Foresight` averages over; always the same."""
    weights = (-own_energy(molecule, chart, 2 * ANGLES) / kT).softmax(-1)
    rng = torch.Generator().manual_seed(0)
    if not len(weights):
        angles = torch.zeros(SETTINGS, 0, dtype=torch.float64)
    else:
        angles = torch.multinomial(weights, SETTINGS, True, generator=rng).T * (pi / ANGLES) - pi
    stiff = torch.zeros(SETTINGS, chart.stiffs, dtype=chart.dtype)
    positions = chart.inverse(angles.to(chart.dtype), stiff)[0].double()
    return positions[:, chart.tree.order.to(positions.device)], angles.double()


def _axes(placed, axis):
    """(e_x towards the great-grandparent, e_y, e_z from grandparent to parent, the parent)."""
    origin, middle, far = (placed[:, k] for k in axis)
    z = torch.nn.functional.normalize(origin - middle, dim=-1)
    side = far - middle
    x = torch.nn.functional.normalize(side - (side * z).sum(-1, keepdim=True) * z, dim=-1)
    return x, torch.linalg.cross(z, x), z, origin


def _owners(chart: InternalChart) -> Tensor:
    """The last torsion that moves each place, -1 for none."""
    number = {int(p): k for k, p in enumerate(chart.place_of_torsion)}
    rings = zip(chart.puckers.phases.tolist(), chart.puckers.amplitudes.tolist(), strict=True)
    number |= {amplitude: number[phase] for phase, amplitude in rings}
    owner: list[int] = []
    for place, refs in enumerate(chart.refs.tolist()):
        owner.append(max([number.get(place, -1)] + [owner[r] for r in refs if r >= 0]))
    return torch.tensor(owner)


def _step(axis, number, owner, frame, pairs, dtype) -> Step:
    group = (owner == number).nonzero()[:, 0]
    standing = (owner < number).nonzero()[:, 0]
    standing = standing[~torch.isin(standing, axis[:2])]  # those on the axis stay as far as they are
    x, y, z, origin = (t[0] for t in _axes(frame[None], axis))
    apart = frame[group] - origin
    tables = [table[group][:, standing].to(dtype) for table in pairs]
    local = [(apart @ e).to(dtype) for e in (z, x, y)]
    return Step(axis, group, standing, *local, *tables)
