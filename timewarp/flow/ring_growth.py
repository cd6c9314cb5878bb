"""What the phase of a ring's pucker does to the atoms that it places: the step of `Growth` that turns two bonds.

The ring has the amplitude of the chart's mean. Atoms beyond one of the two bonds turn about it, those beyond both about
the later one first; so the group is not rigid, and the pairs within it count too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timewarp.flow.chart import InternalChart
from timewarp.flow.pucker import STEP

AT_ONCE = 64  # configurations
Tables = tuple[Tensor, ...]  # sigma^6, 4 epsilon, q q, q q of the solvent, B B of pairs


@dataclass(frozen=True)
class RingStep:
    """One phase: where its group goes, and the pairs that it makes. Energies in kT.

    Positions are in the frame of the axis: its parent at the origin, x towards the great-grandparent, z along the bond.

    Attributes:
        axis: places (parent, grandparent, great-grandparent) of the earlier of the two dihedrals.
        group: places that move.
        standing: places that are there, those of the axis among them.
        shape: the group at phase 0.
        led: which of it the earlier and the later dihedral turn.
        points: on the axis of each.
        ways: unit vectors along these axes.
        swing: of the dihedrals, rad: the unit times the radius of the mean pucker.
        grid: the group at the angles of a curve.
        tables: of pairs [group, standing] whose distance changes.
        inner: of pairs [group, group] whose distance changes, each once.
    """

    axis: Tensor
    group: Tensor
    standing: Tensor
    shape: Float[Tensor, "group 3"]
    led: Bool[Tensor, "2 group"]
    points: Float[Tensor, "2 3"]
    ways: Float[Tensor, "2 3"]
    swing: float
    grid: Float[Tensor, "angles group 3"]
    tables: Tables
    inner: Tables

    @classmethod
    def of(
        cls,
        chart: InternalChart,
        ring: int,
        group: Tensor,
        standing: Tensor,
        frame: Float[Tensor, "atoms 3"],
        axes: Sequence[Tensor],
        pairs: Sequence[Float[Tensor, "atoms atoms"]],
        angles: Float[Tensor, " angles"],
    ) -> RingStep:
        """The step of a ring of the chart.

        Args:
            chart: of the molecule.
            ring: number of it in the chart's puckers.
            group: places whose last torsion is this phase.
            standing: places that earlier torsions have set.
            frame: positions at phase 0, in placement order.
            axes: e_x, e_y, e_z and the origin of the frame of the earlier dihedral there.
            pairs: tables of all places.
            angles: of a curve.
        """
        places = [int(p[ring]) for p in (chart.puckers.phases, chart.puckers.amplitudes)]
        x, y, z, origin = axes
        local = (frame - origin) @ torch.stack([x, y, z], 1)
        refs = chart.refs[places]
        ways = torch.nn.functional.normalize(local[refs[:, 0]] - local[refs[:, 1]], dim=-1)
        led = chart.below[1][places][:, group] > 0
        mean = torch.zeros(1, chart.torsions, dtype=chart.dtype), torch.zeros(1, chart.stiffs, dtype=chart.dtype)
        turned = chart.join(*mean)[0, places, 2] - chart.puckers.centre[ring].to(chart.dtype)
        new = cls(
            chart.refs[places[0]], group, standing, local[group], led, local[refs[:, 0]], ways, float(turned[0]),
            local[group][None], (), (),
        )  # fmt: skip
        grid = new.at(angles.double())
        across = _used(pairs, group, standing, ~_still(led, refs, standing))
        change = torch.cdist(grid, grid)
        moving = (change.amax(0) - change.amin(0) > 1e-9).triu(1)
        inner = _used(pairs, group, group, moving)
        parts = {f.name: getattr(new, f.name) for f in fields(cls)} | {"grid": grid, "tables": across, "inner": inner}
        return cls(**parts).to(chart.dtype)

    def to(self, target: torch.dtype | torch.device | str) -> RingStep:
        """The same with its numbers of a type, or all of it on a device."""

        def moved(value):
            if isinstance(value, tuple):
                return tuple(moved(v) for v in value)
            keep = not isinstance(value, Tensor) or (isinstance(target, torch.dtype) and not value.is_floating_point())
            return value if keep else value.to(target)

        return replace(self, **{f.name: moved(getattr(self, f.name)) for f in fields(self)})

    def at(self, phase: Float[Tensor, " batch"]) -> Float[Tensor, "batch group 3"]:
        """The group at these phases."""
        x = self.shape.expand(len(phase), -1, -1)
        for bond in (1, 0):
            away = self.swing * (torch.cos(phase + bond * STEP) - torch.cos(torch.as_tensor(bond * STEP)))
            cosine, sine = torch.cos(away)[:, None, None], torch.sin(away)[:, None, None]
            way, point = self.ways[bond], self.points[bond]
            arm = x - point
            along = (arm @ way)[..., None] * way
            turned = along + cosine * (arm - along) + sine * torch.linalg.cross(way.expand_as(arm), arm)
            x = torch.where(self.led[bond][:, None], point + turned, x)
        return x

    @property
    def inner_square(self) -> Float[Tensor, "1 group group angles"]:
        """Squared distances within the group at the angles of a curve."""
        return torch.cdist(self.grid, self.grid).square().movedim(0, -1)[None]

    def square(self, local: Float[Tensor, "batch standing 3"]) -> Float[Tensor, "batch group standing angles"]:
        """Squared distances of the group at the angles of a curve from what stands."""
        dot = torch.einsum("agc,bsc->bgsa", self.grid, local)
        own = self.grid.square().sum(-1).T[None, :, None]
        return own + local.square().sum(-1)[:, None, :, None] - 2 * dot


def _still(led, refs, standing) -> Bool[Tensor, "group standing"]:
    """Pairs that keep their distance: what stands is on the axis of every dihedral that turns the other."""
    on = torch.stack([torch.isin(standing, pair[:2]) for pair in refs])
    return (on[:, None] | ~led[:, :, None]).all(0)


def _used(pairs, rows, columns, wanted) -> Tables:
    sigma6, epsilon, charge, born, reach = (table[rows][:, columns] for table in pairs)
    return sigma6, epsilon * wanted, charge * wanted, born * wanted, reach
