"""Saturated rings of five atoms: phase and amplitude of the pucker in place of two dihedrals.

Along one dihedral of such a ring the geometry folds back: at its ends two puckers have the same angle. Round the
circle of pseudorotation none is met twice (Altona and Sundaralingam 1972): the phase turns freely, as a torsion does,
and the amplitude is stiff. Atoms that hang on the other bonds of the ring turn by a radian between two puckers: where
their dihedrals relax from is told by the phase, or they would end in a geometry that is no pucker at all.

| symbol | variable |
|---|---|
| d_k = phi_k - c_k, k = 0, 1: dihedrals about two neighbouring bonds of the ring | away |
| d_k = A rho cos(P + 4 pi k / 5) | UNIT, radius, phase |
| rho = s ln(1 + e^(a / s)), nearly a itself | SOFTNESS, amplitude |
| ln |d(phi_0, phi_1) / d(P, a)| = ln rho + ln (d rho / da) + ln A^2 sin(4 pi / 5) | log_volume |
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import cos, log, pi, sin

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.flow.geometry import dihedral, wrap
from timewarp.flow.tree import Ring, Tree
from timewarp.state import Positions

STEP = 4 * pi / 5  # of the phase, from a ring's bond to its neighbour
UNIT = 0.65  # rad, of a ring's dihedrals: an amplitude of 1 is about that of proline
SOFTNESS = 0.25
LEAST = 1e-6  # radius of a ring as flat as it may be
COSINE, SINE = cos(STEP), sin(STEP)


@dataclass(frozen=True)
class Puckers:
    """The puckers of a molecule in its chart.

    Attributes:
        phases: places whose dihedral the phase stands for.
        amplitudes: places whose dihedral the amplitude stands for.
        centre: dihedrals of both places in a flat ring, rad: multiples of 60 degrees, so that they do not depend on
            the geometry that they are found from.
        hung: places of atoms off a ring whose dihedrals are about another bond of it, and so turn with its pucker.
        ring, bond: which ring that is, and which of its bonds: 0 is that of the phase, 1 that of the amplitude.
        level: their dihedrals in a flat ring, rad, as `centre`.
    """

    phases: Int[Tensor, " rings"]
    amplitudes: Int[Tensor, " rings"]
    centre: Float[Tensor, "rings 2"]
    hung: Int[Tensor, " hung"]
    ring: Int[Tensor, " hung"]
    bond: Int[Tensor, " hung"]
    level: Float[Tensor, " hung"]

    @classmethod
    def of(cls, tree: Tree, reference: Positions, internal: Float[Tensor, "atoms 3"]) -> Puckers:
        """The rings of `tree`, with signs and offsets from a geometry and its internal coordinates."""
        phases, amplitudes = (torch.tensor([ring.places[k] for ring in tree.rings], dtype=torch.long) for k in range(2))
        offsets = []
        for ring in tree.rings:
            x = reference[list(ring.atoms)].double()
            turns = torch.stack([dihedral(*x[k : k + 4].unbind(0)) for k in range(2)])
            offsets.append(wrap(internal[list(ring.places), 2].double() - turns))
        found = torch.stack(offsets) if offsets else torch.zeros(0, 2, dtype=torch.float64)
        hung = [(place, number, bond) for number, ring in enumerate(tree.rings) for place, bond in _hung(tree, ring)]
        off = []
        for place, number, bond in hung:
            x = reference[[tree.rings[number].atoms[(bond + k) % 5] for k in range(4)]].double()
            off.append(wrap(internal[place, 2].double() - dihedral(*x.unbind(0))))
        level = torch.stack(off) if off else torch.zeros(0, dtype=torch.float64)
        places, rings, bonds = torch.tensor(hung, dtype=torch.long).reshape(-1, 3).unbind(1)
        return cls(phases, amplitudes, _rounded(found), places, rings, bonds, _rounded(level))

    def __len__(self) -> int:
        return len(self.phases)

    def to(self, device: torch.device | str) -> Puckers:
        return Puckers(*(getattr(self, field.name).to(device) for field in fields(self)))

    def leaning(
        self, phase: Float[Tensor, "*batch rings"], amplitude: Float[Tensor, "*batch rings"]
    ) -> Float[Tensor, "*batch hung"]:
        """The dihedrals of the `hung` places by pseudorotation alone, rad."""
        radius = SOFTNESS * torch.nn.functional.softplus(amplitude / SOFTNESS)
        turn = torch.cos(phase[..., self.ring] + STEP * self.bond.to(phase))
        return UNIT * radius[..., self.ring] * turn + self.level.to(phase)

    def curled(self, internal: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch atoms 3"]:
        """Internal coordinates with phase and amplitude where their dihedrals were."""
        if not len(self):
            return internal
        phase, radius = self._polar(internal)
        out = internal.clone()
        out[..., self.phases, 2] = phase
        out[..., self.amplitudes, 2] = radius + SOFTNESS * torch.log(-torch.expm1(-radius / SOFTNESS))
        return out

    def uncurled(self, curled: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch atoms 3"]:
        """The inverse of `curled`, with angles that may lie outside (-pi, pi]."""
        if not len(self):
            return curled
        phase, amplitude = curled[..., self.phases, 2], curled[..., self.amplitudes, 2]
        turned = self.dihedrals(phase, amplitude)
        out = curled.clone()
        out[..., self.phases, 2], out[..., self.amplitudes, 2] = turned.unbind(-1)
        return out

    def dihedrals(
        self, phase: Float[Tensor, "*batch rings"], amplitude: Float[Tensor, "*batch rings"]
    ) -> Float[Tensor, "*batch rings 2"]:
        """The dihedrals of both places of each ring."""
        radius = SOFTNESS * torch.nn.functional.softplus(amplitude / SOFTNESS)
        away = UNIT * radius[..., None] * torch.stack([torch.cos(phase), torch.cos(phase + STEP)], -1)
        return away + self.centre.to(away)

    def log_volume(self, internal: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch"]:
        """ln |d(dihedrals) / d(phase, amplitude)| of all rings; an integral over the former is one over the latter."""
        _, radius = self._polar(internal)
        # d rho / da = 1 - exp(-rho / s)
        each = torch.log(radius) + torch.log(-torch.expm1(-radius / SOFTNESS)) + log(UNIT * UNIT * SINE)
        return each.sum(-1)

    def rates(
        self, internal: Float[Tensor, "*batch atoms 3"], rate: Float[Tensor, "*batch atoms 3"]
    ) -> Float[Tensor, "*batch atoms 3"]:
        """d(f - log_volume)/d(phase, amplitude) in their places, from df/d(dihedral) there."""
        if not len(self):
            return rate
        phase, radius = self._polar(internal)
        slope = -torch.expm1(-radius / SOFTNESS)
        first, second = rate[..., self.phases, 2], rate[..., self.amplitudes, 2]
        along = UNIT * (first * torch.cos(phase) + second * torch.cos(phase + STEP))
        across = -UNIT * radius * (first * torch.sin(phase) + second * torch.sin(phase + STEP))
        out = rate.clone()
        out[..., self.phases, 2] = across
        out[..., self.amplitudes, 2] = along * slope - slope / radius - (1 - slope) / SOFTNESS
        return out

    def _polar(self, internal: Tensor) -> tuple[Tensor, Tensor]:
        """(phase, radius), [*batch, rings]."""
        both = torch.stack([internal[..., self.phases, 2], internal[..., self.amplitudes, 2]], -1)
        return polar(both - self.centre.to(both))


def _hung(tree: Tree, ring: Ring) -> list[tuple[int, int]]:
    """(place, bond) of the atoms off a ring whose dihedral is about a bond of it that neither place of it turns."""
    number = {atom: k for k, atom in enumerate(ring.atoms)}
    found = []
    for place, (atom, row) in enumerate(zip(tree.order.tolist(), tree.rows.tolist(), strict=True)):
        if atom in number or any(a not in number for a in row):
            continue
        parent, up, beyond = (number[a] for a in row)
        away = (up - parent) % 5
        if away in (1, 4) and (beyond - up) % 5 == away:
            # atoms k .. k + 3 round the ring turn bond k: parent and up are the middle two
            found.append((place, (min(parent, up) if abs(parent - up) == 1 else 4) - 1))
    return [(place, bond % 5) for place, bond in found]


def _rounded(turns: Tensor) -> Tensor:
    return torch.round(turns * (3 / pi)) * (pi / 3)


def polar(away: Float[Tensor, "*batch 2"]) -> tuple[Tensor, Tensor]:
    """(phase, radius) of one ring from what its two dihedrals are away from those of a flat ring."""
    first, second = (wrap(away) / UNIT).unbind(-1)
    side = (COSINE * first - second) / SINE
    return torch.atan2(side, first), torch.hypot(side, first).clamp_min(LEAST)
