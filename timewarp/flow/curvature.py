"""Second derivatives of the pairs' energy with respect to bends and dihedrals, for every configuration of a batch.

What stiffens or softens the stiff coordinates as the torsions turn is the pairs: a contact stiffens what would close
it by as much as a bend resists. Their Hessian over positions is known in closed form, and changing an internal
coordinate moves all atoms beyond it as a rigid body, about an axis that turns with the bodies before it (Noguti and
Go 1983). The bonds, a hundred times stiffer, do not feel it, and are left out; so is, for the amplitude of a ring's
pucker, which turns two bodies at once, the last term. On a CPU the same is summed by `moments`, which is faster.

| symbol | variable |
|---|---|
| E(r) of a pair: Lennard-Jones, Coulomb, generalized Born at fixed radii | molecule |
| f = E'/r, w = (E'' - f)/r^2 | push, bend |
| d2E/dx_k dx_l = -(w d d^T + f 1), d = x_l - x_k | blocks |
| v_ki = dx_k/dq_i = a_i cross (x_k - p_i) for k beyond i | rates |
| d2x_k/dq_i dq_j = a_i cross v_kj for i before j | turned |
| d2E/dq_i dq_j = sum v_ki . d2E/dx_k dx_l . v_lj + a_i . sum v_kj cross dE/dx_k | curvature |
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.flow.chart import ANGLE, DIHEDRAL, InternalChart
from timewarp.flow.closing import Closing
from timewarp.flow.moments import hessian, roots_of
from timewarp.flow.pair_tables import CLOSEST, pair_tables
from timewarp.flow.swings import Swings
from timewarp.machine import apt
from timewarp.state import Molecule, Positions

AT_ONCE = 32  # configurations, so that their matrices stay in the cache
ON_GPU = 2**26  # numbers of a matrix of all of them, where there is room


class Curvature:
    """The Hessian of the pairs' energy in the bends and dihedrals of a chart's stiff coordinates.

    Args:
        molecule: whose pairs; the Born radii are those of its prepared structure.
        chart: of the molecule.
        temperature: K; energies are in kT.

    Attributes:
        rows: which of the chart's stiff coordinates are bends, then which are dihedrals, the amplitudes of rings last:
            the order of the Hessian.
        heavy: how many atoms that are no hydrogens each of these moves.
        swings: the rings whose amplitudes these are.
        rigid: whether of two bodies that other coordinates turn none is in part in the other: what `moments` can sum.
    """

    def __init__(self, molecule: Molecule, chart: InternalChart, temperature: float):
        self.chart, dtype = chart, chart.dtype
        cpu = chart.to("cpu") if chart.root.is_cuda else chart
        tables = pair_tables(molecule, cpu.tree.order, units.kT(temperature))
        self.tables = torch.stack(tables).to(dtype)
        places, kinds = cpu.stiff.nonzero().unbind(1)
        swung = (kinds == DIHEDRAL) & torch.isin(places, cpu.puckers.amplitudes)
        groups = kinds == ANGLE, (kinds == DIHEDRAL) & ~swung, swung
        self.rows = torch.cat([group.nonzero()[:, 0] for group in groups])
        self.place, self.kind = places[self.rows], kinds[self.rows]
        moved, led = cpu.below.bool()
        body = torch.where((self.kind == DIHEDRAL)[:, None], led[self.place], moved[self.place])
        amplitude = swung[self.rows]
        self.body = body.to(dtype)
        self.heavy = body[:, molecule.elements[cpu.tree.order].cpu() > 1].sum(1)
        rings = [Closing.of(molecule, cpu, k, self.place, self.kind, temperature) for k in range(len(cpu.puckers))]
        self.swings = Swings.of(rings, body)
        within = (body[:, None] | ~body[None]).all(-1)  # the second's body is part of the first's
        same = self.place[:, None] == self.place
        first = self.kind[:, None] >= self.kind  # of one atom the dihedral turns the axis of the bend
        self.before = torch.where(same, first, within & body[:, self.place]) & ~amplitude & ~amplitude[:, None]
        self.refs = cpu.refs
        self.roots = roots_of(cpu.leads, torch.stack([self.place, self.kind]))
        # loops know one rigid body a coordinate, and none that is partly in another
        shared = (self.body @ self.body.T > 0) & ~self.before & ~self.before.T
        self.rigid = not bool(shared[~amplitude][:, ~amplitude].any())

    def to(self, device: torch.device | str) -> Curvature:
        """The same with its tensors on a device."""
        new = object.__new__(Curvature)
        for name, value in vars(self).items():
            setattr(new, name, value.to(device) if isinstance(value, Tensor | InternalChart | Swings) else value)
        return new

    @torch.no_grad()
    def __call__(self, positions: Positions) -> Float[Tensor, "batch rows rows"]:
        """d2E/dq dq in kT, zeros where it is not finite."""
        x = positions[:, self.chart.tree.order].to(self.tables.dtype)
        if self.rigid and apt(x):
            rows = torch.stack([self.place, self.kind])
            return hessian(x, self.tables, self.refs, rows, self.roots, self.before, self.swings)
        at_once = max(1, ON_GPU // (9 * x.shape[1] ** 2)) if x.is_cuda else AT_ONCE
        parts = [self._of(part) for part in x.split(at_once)]
        return torch.cat(parts) if parts else x.new_zeros(0, len(self.rows), len(self.rows))

    def _of(self, x: Float[Tensor, "batch places 3"]) -> Tensor:
        batch, atoms, _ = x.shape
        blocks, force = self._blocks(x.mT.contiguous())
        axes, rates = self._rates(x)
        for ring in self.swings.rings:
            rates = ring.stretched(x, rates)
        flat = rates.view(batch, len(self.rows), 3 * atoms)
        found = flat @ blocks @ flat.mT
        turned = rates @ force.mT[:, None]  # [., ., i, j] = sum_k v_i dE/dx_j
        torque = torch.stack([turned[..., i, j] - turned[..., j, i] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
        along = axes @ torque.mT
        found += torch.where(self.before, along, torch.where(self.before.T, along.mT, 0.0))
        for ring in self.swings.rings:
            found += ring.closing(x, rates)
        found[~found.isfinite().flatten(1).all(1)] = 0.0
        return found

    def _blocks(self, x: Float[Tensor, "batch 3 places"]) -> tuple[Tensor, Float[Tensor, "batch 3 places"]]:
        """(d2E/dx dx as [batch, 3 places, 3 places], component by component; dE/dx)."""
        batch, _, atoms = x.shape
        sigma6, epsilon, charge, born, reach = self.tables
        apart = x[:, :, None, :] - x[:, :, :, None]
        r2 = apart.square().sum(1)
        diagonal = torch.arange(atoms, device=x.device)
        r2[:, diagonal, diagonal] = 1.0
        r2.clamp_min_(CLOSEST)
        w = 1 / r2
        coulomb = charge * w.sqrt()
        s6 = sigma6 * w * w * w
        attraction = epsilon * s6
        repulsion = attraction * s6
        push = (6 * attraction - 12 * repulsion - coulomb) * w
        rise = (156 * repulsion - 42 * attraction + 2 * coulomb) * w
        decay = torch.exp(r2 * (-0.25 / reach))
        inner = 1 / (r2 + reach * decay)
        screen = born * inner * inner.sqrt()
        slope = 1 - 0.25 * decay
        push += screen * slope
        rise += screen * (slope + r2 * decay * (0.125 / reach) - 3 * r2 * inner * slope * slope)
        bend = (rise - push) * w
        for table in (push, bend):
            table[:, diagonal, diagonal] = 0.0
        force = -(push[:, None] * apart).sum(-1)
        scaled = bend[:, None] * apart
        blocks = x.new_empty(batch, 3, atoms, 3, atoms)
        for i in range(3):
            for j in range(3):
                block = scaled[:, i] * apart[:, j]
                if i == j:
                    block += push
                block[:, diagonal, diagonal] = -block.sum(-1)
                blocks[:, i, :, j] = -block
        return blocks.view(batch, 3 * atoms, 3 * atoms), force

    def _rates(self, x: Float[Tensor, "batch places 3"]) -> tuple[Tensor, Float[Tensor, "batch rows 3 places"]]:
        """(the axes a_i, what each coordinate does to each place)."""
        refs = self.chart.refs
        origin, beyond = (x[:, refs[self.place, k]] for k in range(2))
        bond, axis = x[:, self.place] - origin, origin - beyond
        turns = (self.kind == DIHEDRAL)[:, None]
        axes = torch.nn.functional.normalize(torch.where(turns, axis, torch.linalg.cross(bond, axis)), dim=-1)
        shift = torch.linalg.cross(axes, origin)
        a, b, c = axes[..., None].unbind(-2)
        p, q, r = x.mT[:, None].unbind(-2)
        rates = torch.stack([b * r - c * q, c * p - a * r, a * q - b * p], -2) - shift[..., None]
        return axes, rates * self.body[:, None]
