"""The bonded terms that close a saturated ring: stiff in a direction that turns with the pucker.

A ring's last bond, and the angles at it, are coordinates of no atom of the tree: they are felt along a combination of
the ring's bends and dihedrals that is another at each phase. A mean curvature over phases is therefore too stiff
everywhere; here theirs is taken at each geometry, to first order (Gauss-Newton: they are nearly relaxed). (That of the
torsions about the ring's bonds, which changes with the phase too, was tried and made the law no better.)

| symbol | variable |
|---|---|
| s, a bond or an angle, with stiffness k | terms |
| J = ds/dq of the stiff bends and dihedrals | rows |
| k' = k / (1 + sum_b (k / k_b) (e . u_b)^2): of the closing bond, whose strain the ring's other bonds share | shared |
| sum k J J^T | closing |
| da of the amplitude: d phi_k = A rho' cos(P + 4 pi k / 5) da, k = 0, 1 | stretched |
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp import units
from timewarp.flow.chart import DIHEDRAL, InternalChart
from timewarp.flow.geometry import dihedral
from timewarp.flow.pucker import SOFTNESS, STEP, UNIT, polar
from timewarp.state import Molecule


@dataclass(frozen=True)
class Closing:
    """One ring; atoms are places.

    Attributes:
        places: of the phase and of the amplitude.
        refs: what their dihedrals are measured from.
        centre: these dihedrals in a flat ring, rad.
        row: of the amplitude among the rows of `Curvature`.
        body: what the dihedral of the phase's place turns.
        ends: of the closing bond.
        stiffness: of that bond, kT/nm^2.
        others: the ring's other bonds.
        compliance: k / k_b of these.
        angles: that have the closing bond for a leg.
        bending: their stiffness, kT/rad^2.
    """

    places: Int[Tensor, " 2"]
    refs: Int[Tensor, "2 3"]
    centre: Float[Tensor, " 2"]
    row: int
    body: Float[Tensor, " atoms"]
    ends: Int[Tensor, " 2"]
    stiffness: float
    others: Int[Tensor, "4 2"]
    compliance: Float[Tensor, " 4"]
    angles: Int[Tensor, "angles 3"]
    bending: Float[Tensor, " angles"]

    @classmethod
    def of(
        cls, molecule: Molecule, chart: InternalChart, number: int, place: Tensor, kind: Tensor, temperature: float
    ) -> Closing:
        """The ring of that number in the chart's tree.

        Args:
            molecule: with its bonded terms.
            chart: of the molecule.
                place: of each row of the Hessian.
            kind: of each row: 1 of a bend, 2 of a dihedral.
            temperature: K.
        """
        puckers, ff, kT = chart.puckers, molecule.forcefield, units.kT(temperature)
        atoms = chart.back[list(chart.tree.rings[number].atoms)]

        def row(at: int) -> int:
            return int(((place == at) & (kind == DIHEDRAL)).nonzero()[0, 0])

        around = torch.stack([atoms, atoms.roll(-1)], 1)
        pairs = chart.back[ff.bond_index]

        def stiffness(bond: Tensor) -> float:
            same = (pairs.sort(1).values == bond.sort().values).all(1)
            return float(ff.bond_stiffness[same].sum()) / kT

        k = [stiffness(bond) for bond in around]
        triples, ends = chart.back[ff.angle_index], around[4]
        legs = [torch.isin(triples[:, part], ends).all(1) for part in ([0, 1], [1, 2])]
        dtype, places = chart.dtype, torch.stack([puckers.phases[number], puckers.amplitudes[number]])
        return cls(
            places,
            chart.refs[places],
            puckers.centre[number],
            row(int(puckers.amplitudes[number])),
            (chart.below[1][puckers.phases[number]] > 0).to(dtype),
            ends,
            k[4],
            around[:4],
            torch.tensor([k[4] / one for one in k[:4]], dtype=dtype),
            triples[legs[0] | legs[1]],
            (ff.angle_stiffness[legs[0] | legs[1]] / kT).to(dtype),
        )

    def to(self, device: torch.device | str) -> Closing:
        """The same with its tensors on a device."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        parts |= {name: value.to(device) for name, value in parts.items() if isinstance(value, Tensor)}
        return Closing(**parts)

    def weights(self, x: Float[Tensor, "batch places 3"]) -> Float[Tensor, "batch 2"]:
        """How fast the dihedrals of the phase's and the amplitude's places turn with the amplitude."""
        turns = [dihedral(x[:, p], *(x[:, r] for r in row)) for p, row in zip(self.places, self.refs, strict=True)]
        phase, radius = polar(torch.stack(turns, -1) - self.centre.to(x))
        swing = UNIT * -torch.expm1(-radius / SOFTNESS)
        return swing[:, None] * torch.stack([torch.cos(phase), torch.cos(phase + STEP)], -1)

    def stretched(
        self, x: Float[Tensor, "batch places 3"], rates: Float[Tensor, "batch rows 3 places"]
    ) -> Float[Tensor, "batch rows 3 places"]:
        """The rates with that of the amplitude, which turns two bonds, in place of its dihedral's."""
        axis = torch.nn.functional.normalize(x[:, self.refs[0, 0]] - x[:, self.refs[0, 1]], dim=-1)
        arm = x - x[:, self.refs[0, :1]]
        first = (torch.linalg.cross(axis[:, None].expand_as(arm), arm) * self.body[:, None]).mT
        one, two = self.weights(x)[..., None, None].unbind(1)
        rates[:, self.row] = one * first + two * rates[:, self.row]
        return rates

    @property
    def atoms(self) -> Int[Tensor, "terms 3"]:
        """Places of the closing bond, the first of them twice, and of the angles."""
        return torch.cat([self.ends[[0, 1, 0]][None], self.angles])

    def slopes(self, x: Float[Tensor, "batch places 3"]) -> Float[Tensor, "batch terms 3 3"]:
        """k^(1/2) ds/dx of each term at its `atoms`."""
        one, two = self.ends
        way = torch.nn.functional.normalize(x[:, two] - x[:, one], dim=-1)
        other = torch.nn.functional.normalize(x[:, self.others[:, 1]] - x[:, self.others[:, 0]], dim=-1)
        share = 1 + ((other @ way[..., None])[..., 0].square() * self.compliance).sum(-1)
        way = way * (self.stiffness / share).sqrt()[:, None]
        bond = torch.stack([-way, way, torch.zeros_like(way)], 1)
        i, j, k = self.angles.unbind(1)
        a, b = x[:, i] - x[:, j], x[:, k] - x[:, j]
        p, q = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
        a, b = a / p, b / q
        cosine = (a * b).sum(-1, keepdim=True)
        sine = (1 - cosine.square()).clamp_min(1e-6).sqrt()
        at_i, at_k = (cosine * a - b) / (p * sine), (cosine * b - a) / (q * sine)
        angle = torch.stack([at_i, -at_i - at_k, at_k], 2) * self.bending.sqrt()[:, None, None]
        return torch.cat([bond[:, None], angle], 1)

    def closing(
        self, x: Float[Tensor, "batch places 3"], rates: Float[Tensor, "batch rows 3 places"]
    ) -> Float[Tensor, "batch rows rows"]:
        """sum k J J^T of the closing terms."""
        rows = torch.einsum("brctn,btnc->btr", rates[..., self.atoms], self.slopes(x))
        return rows.mT @ rows
