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
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import pi
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.ahead import ahead, kept
from timewarp.flow.chart import InternalChart
from timewarp.flow.foresight import SETTINGS, Beads, Foresight, foreseen
from timewarp.flow.ring_growth import AT_ONCE, RingStep
from timewarp.flow.tokens import own_energy
from timewarp.forcefield import GeneralizedBorn
from timewarp.state import Molecule

ANGLES = 36  # of a curve, equally spaced from -pi
TEMPER = 3.0  # kT: from here on a clash counts by its logarithm, since the stiff coordinates give way
CLOSEST = 0.08**2  # nm^2, of two atoms: closer is no worse
PAIRS = 2  # curves of the pairs of a torsion's own group
CHANNELS = PAIRS + 2
OPTIONS = {"cpp.dynamic_threads": True}


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
        self.energies = _compiled(chart.dtype) if compiled else _energies
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
        self.energies = _compiled(self.start.dtype)

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
            inner = _sums(step.inner_square, *step.inner)
            parts = [_sums(step.square(part), *step.tables) for part in local.split(AT_ONCE)]
            clash, electric = (torch.cat(part) + own for part, own in zip(zip(*parts, strict=True), inner, strict=True))
            return torch.stack([_tempered(clash), electric], 1)
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


def _energies(a, b, c, cosine, sine, *tables):
    clash, electric = _sums(a[..., None] + b[..., None] * cosine + c[..., None] * sine, *tables)
    return torch.stack([_tempered(clash), electric], 1)


def _sums(square, *tables):
    """(Lennard-Jones, Coulomb and generalized Born), [batch, angles], from squared distances of all pairs."""
    sigma6, epsilon, charge, born, reach = (table[..., None] for table in tables)
    square = square.clamp_min(CLOSEST)
    inverse = 1 / square
    s6 = sigma6 * inverse * inverse * inverse
    clash = (epsilon * (s6 * s6 - s6)).sum((1, 2))
    smooth = (square + reach * torch.exp(-square / (4 * reach))).rsqrt()
    return clash, (charge * inverse.sqrt() - born * smooth).sum((1, 2))


def _tempered(clash):
    over = (clash - TEMPER).clamp_min(0.0)
    return torch.where(over > 0, TEMPER + TEMPER * torch.log1p(over / TEMPER), clash)


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


def _named(dtype: torch.dtype) -> tuple[str, list[ModuleType]]:
    return f"growth-{str(dtype)[6:]}", [sys.modules[__name__]]


def ready(dtype: torch.dtype) -> bool:
    """Whether the compiled loops are only to be loaded."""
    return kept(OPTIONS, *_named(dtype))


def make(dtype: torch.dtype) -> None:
    """Compile them, if they are not kept."""
    _compiled(dtype)


@functools.cache
def _traced() -> Callable[..., Tensor]:
    return torch.compile(_energies, dynamic=True)


@functools.cache
def _compiled(dtype: torch.dtype) -> Callable[..., Tensor]:
    """On a CPU it is loaded, where a process of this user made it before; else each compiles it at its first call."""
    table = torch.zeros(7, 19, dtype=dtype)  # sizes that are like those of peptides, and unlike one another
    example = [*3 * [table.expand(64, -1, -1).contiguous()], *2 * [torch.zeros(ANGLES, dtype=dtype)], *5 * [table]]
    free = [*3 * [[0, 1, 2]], *2 * [[]], *5 * [[0, 1]]]
    try:
        made = ahead(lambda *t: [_energies(*t)], example, free, OPTIONS, *_named(dtype))
    except Exception:  # its kinds differ between versions; what cannot be compiled at all is said at the call
        return _traced()

    def energies(*tensors):
        if tensors[0].is_cuda or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return _traced()(*tensors)
        return made([t.contiguous() for t in tensors])[0]

    return energies


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
