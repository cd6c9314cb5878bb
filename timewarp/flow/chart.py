"""The internal chart: positions <-> (free torsions, whitened stiff coordinates), with its log-determinant.

Bonds, angles, siblings' dihedrals and the dihedrals of rings and double-like bonds are stiff: the force field's own
curvature makes them N(0, I) before anything is learned. The torsions that turn freely live on the circle, and so does
the phase of a saturated ring of five, whose amplitude is stiff (`Puckers`): both count as torsions and dihedrals here.

| symbol | variable |
|---|---|
| R = (r, theta, phi) a placed atom | internal |
| H = Hessian of U_bonded/kT - ln volume | curvature |
| z = H^(1/2) (R - R0) | stiff |
| tau | torsions |
| ln |dx / d(pose, R)| = sum 2 ln r + ln sin theta | log_volume |
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow import loops, placing
from timewarp.flow.geometry import angle, dihedral, distance, local, set_off, wrap
from timewarp.flow.pucker import Puckers
from timewarp.flow.torque import below, leads, torques
from timewarp.flow.tree import Tree, tree
from timewarp.machine import apt
from timewarp.state import Molecule, Positions

ANGLE, DIHEDRAL = 1, 2  # kinds of an internal coordinate; a bond is 0
SPACING = 1e-4  # nm and rad, of the differences of gradients
VERSION = ("phases", "closing")  # of the whitening of a molecule with saturated rings
SOFTEST = 1.0  # floor of the curvature's eigenvalues, 1/rad^2: a coordinate softer than a radian is not stiff


class InternalChart:
    """The chart of one molecule.

    Args:
        molecule: its graph, and its prepared geometry for signs and cis/trans.
        bonded: U_bonded/kT of positions, differentiable, float64; the chart is whitened with its curvature.
        whitening: what `arrays` gave earlier, in place of `bonded`.
        dtype: precision of the maps (the whitening is always made in float64).

    Attributes:
        tree: the Z-matrix.
        torsions: number of free torsions.
        stiffs: number of stiff coordinates, 3 atoms - 6 - torsions.
        place_of_torsion: place (row of the Z-matrix) of each free torsion.
        puckers: which of the dihedrals are phase and amplitude of a ring.
        dihedrals: which of the stiff coordinates are dihedrals, the amplitudes of rings left out.
    """

    def __init__(
        self,
        molecule: Molecule,
        bonded: Callable[[Positions], Tensor] | None = None,
        whitening: dict[str, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        if (bonded is None) == (whitening is None):
            raise ValueError("expected either the bonded energy or an earlier whitening")
        self.dtype = dtype
        self.tree: Tree = tree(molecule, None if whitening is None else _ties(whitening, molecule))
        n = molecule.atoms
        self.atoms = n
        real = torch.ones(n, 3, dtype=torch.bool)
        real[0] = False
        real[1, 1:] = False
        real[2, 2] = False
        free = torch.zeros(n, 3, dtype=torch.bool)
        free[:, 2] = self.tree.free
        self.free, self.stiff = free, real & ~free
        self.place_of_torsion = self.tree.free.nonzero()[:, 0]
        self.torsions, self.stiffs = len(self.place_of_torsion), int(self.stiff.sum())
        # the same as indices of all coordinates in one row: a mask would have a GPU wait for the host
        self.at_stiff, self.at_free = (mask.flatten().nonzero()[:, 0] for mask in (self.stiff, self.free))
        # within placement order
        position = torch.empty(n, dtype=torch.long)
        position[self.tree.order] = torch.arange(n)
        self.back = position
        self.refs = torch.where(self.tree.rows >= 0, position[self.tree.rows.clamp_min(0)], -1)
        self.below, self.leads = below(self.refs).to(dtype), leads(self.refs)
        self.prepared = self.internal(molecule.reference.double()[None])[0]
        self.puckers = Puckers.of(self.tree, molecule.reference, self.prepared)
        place, kind = self.stiff.nonzero().unbind(1)
        self.dihedrals = (kind == DIHEDRAL) & ~torch.isin(place, self.puckers.amplitudes)
        number = torch.full((n, 3), -1).masked_scatter(self.stiff, torch.arange(self.stiffs))
        self.hung, self.swung = (number[p, 2] for p in (self.puckers.hung, self.puckers.amplitudes))
        self.phased = torch.searchsorted(self.place_of_torsion, self.puckers.phases)
        if whitening is not None:
            phases = self.puckers.phases.cpu()  # and those of the rings whose closing terms `rest` leaves out
            if any(not torch.equal(whitening.get(name, phases[:0]), phases) for name in VERSION):
                raise ValueError("expected the phases of the rings' puckers; the whitening is of another version")
            self.whiten(whitening["mean"], whitening["curvature"], whitening.get("rest"))
        else:
            self._relax(bonded)

    def _relax(self, bonded):
        """Minimise the bonded energy over the stiff coordinates, the torsions held, and whiten there.

        The Hessian is by differences of gradients, all of them in one batch.
        """
        start, stiff = self.puckers.curled(self.prepared), self.stiff
        steps = SPACING * torch.eye(self.stiffs, dtype=start.dtype)
        offsets = torch.cat([torch.zeros_like(steps[:1]), steps, -steps])

        def slopes(r):
            internal = start.expand(len(r), -1, -1).clone()
            internal[:, stiff] = r
            internal = self.puckers.uncurled(internal)
            x = self.cartesian(internal)
            with torch.enable_grad():
                y = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(bonded(y).sum(), y)
            return self.rates(internal, x, gradient)[:, stiff]

        def differences(r):
            g = slopes(r + offsets)
            h = (g[1 : self.stiffs + 1] - g[self.stiffs + 1 :]) / (2 * SPACING)
            return g[0], 0.5 * (h + h.T)

        r = start[stiff]
        for _ in range(30):
            g, h = differences(r)
            values, vectors = torch.linalg.eigh(h)
            values = values.clamp_min(1.0)
            step = -(vectors @ ((vectors.T @ g) / values))
            r = r + step * (0.2 / step.abs().max().clamp_min(0.2))
            if step.abs().max() < 1e-8:
                break
        self.whiten(r, differences(r)[1])

    def whiten(
        self,
        mean: Float[Tensor, " stiffs"],
        curvature: Float[Tensor, "stiffs stiffs"],
        rest: Float[Tensor, "stiffs stiffs"] | None = None,
    ) -> None:
        """Take `mean` and `curvature` (float64) of the stiff coordinates: z = H^(1/2) (R - R0).

        `rest` is what the curvature is without that of the pairs at each geometry; all of it where it is not given,
        as for the bonded curvature.
        """
        values, vectors = torch.linalg.eigh(curvature)
        values = values.clamp_min(SOFTEST)
        root = (vectors * values.sqrt()) @ vectors.T
        inverse = (vectors / values.sqrt()) @ vectors.T
        self.log_whitening = float(0.5 * values.log().sum())
        self.mean, self.root, self.inverse_root = (t.to(self.dtype) for t in (mean, root, inverse))
        self.curvature, self.rest = curvature, curvature if rest is None else rest

    def to(self, device: torch.device | str) -> InternalChart:
        """The same chart with its tensors on a device."""
        new = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(new, name, value.to(device))
        moved = {name: getattr(self.tree, name).to(device) for name in ("order", "rows", "free")}
        new.tree = replace(self.tree, **moved)
        new.puckers = self.puckers.to(device)
        return new

    def arrays(self) -> dict[str, Tensor]:
        """The whitening: what it takes, beside the molecule, to make this very chart again."""
        arrays = {"mean": self.mean.double(), "curvature": self.curvature, "order": self.tree.order}
        arrays |= {name: self.puckers.phases.clone() for name in VERSION} if len(self.puckers) else {}
        return arrays | {"rest": self.rest.clone()}

    def internal(self, positions: Positions) -> Float[Tensor, "*batch atoms 3"]:
        """(bond nm, angle rad, dihedral rad) of each atom in placement order; zeros where an atom has none."""
        x = positions[..., self.tree.order, :]
        a, b, c = self.refs.clamp_min(0).unbind(1)
        pa, pb, pc = x[..., a, :], x[..., b, :], x[..., c, :]
        r = distance(x, pa)
        rest = torch.stack([r[..., 1:2], angle(x[..., 2:3, :], pa[..., 2:3, :], pb[..., 2:3, :])], -1)
        out = torch.zeros_like(x)
        out[..., 1:, 0] = r[..., 1:]
        out[..., 2:3, 1] = rest[..., 1]
        out[..., 3:, 1] = angle(x[..., 3:, :], pa[..., 3:, :], pb[..., 3:, :])
        out[..., 3:, 2] = dihedral(x[..., 3:, :], pa[..., 3:, :], pb[..., 3:, :], pc[..., 3:, :])
        return out

    def cartesian(self, internal: Float[Tensor, "*batch atoms 3"]) -> Positions:
        """Positions in the chart's frame: root at the origin, second atom on x, third in the xy plane."""
        if apt(internal):
            return loops.cartesian(internal, self.refs, self.tree.order)
        if placing.apt(internal):
            placed = placing.cartesian(internal, self.refs, self.tree.order)
            if placed is not None:
                return placed
        r, bend, turn = internal.unbind(-1)
        zero = torch.zeros_like(r[..., 0])
        second = torch.stack([r[..., 1], zero, zero], -1)
        # the third atom hangs on the second
        along, across = r[..., 2] * torch.cos(bend[..., 2]), r[..., 2] * torch.sin(bend[..., 2])
        third = torch.stack([r[..., 1] - along, across, zero], -1)
        placed = torch.stack([torch.zeros_like(second), second, third], -2)
        offsets, refs = local(r, bend, turn), self.refs.T
        for start, stop in self.tree.levels:
            parent, up, beyond = placed[..., refs[:, start:stop], :].unbind(-3)
            new = set_off(parent, up, beyond, offsets[..., start:stop, :])
            placed = torch.cat([placed, new], -2)
        return placed[..., self.back, :]

    def log_volume(self, internal: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch"]:
        """ln of the volume element r^2 sin(theta) of all placed atoms, and of the puckers."""
        r, bend = internal[..., 1:, 0], internal[..., 2:, 1]
        placed = 2 * torch.log(r).sum(-1) + torch.log(torch.sin(bend)).sum(-1)
        return placed + self.puckers.log_volume(internal) if len(self.puckers) else placed

    def split(self, internal) -> tuple[Float[Tensor, "*batch torsions"], Float[Tensor, "*batch stiffs"]]:
        """(tau, z) of internal coordinates."""
        internal = self.puckers.curled(internal)
        internal = internal.flatten(-2)
        delta = internal[..., self.at_stiff] - self.mean.to(internal.dtype)
        delta = torch.where(self.dihedrals, wrap(delta), delta)
        return wrap(internal[..., self.at_free]), delta @ self.root.to(internal.dtype)

    def join(self, torsions, stiff) -> Float[Tensor, "*batch atoms 3"]:
        """The inverse of `split`."""
        r = self.mean.to(stiff.dtype) + stiff @ self.inverse_root.to(stiff.dtype)
        out = r.new_zeros(*r.shape[:-1], self.atoms * 3)
        out[..., self.at_stiff] = r
        out[..., self.at_free] = torsions
        return self.puckers.uncurled(out.reshape(*r.shape[:-1], self.atoms, 3))

    def start(self, torsions: Float[Tensor, "*batch torsions"]) -> Float[Tensor, "*batch stiffs"]:
        """z from which the stiff coordinates relax: the mean, with what hangs on a ring as its phase asks for."""
        stiff = torsions.new_zeros(*torsions.shape[:-1], self.stiffs)
        if not len(self.puckers.hung):
            return stiff
        mean = self.mean.to(torsions.dtype)
        amplitude = mean[self.swung].expand(*torsions.shape[:-1], -1)
        stiff[..., self.hung] = wrap(self.puckers.leaning(torsions[..., self.phased], amplitude) - mean[self.hung])
        return stiff @ self.root.to(stiff.dtype)

    def forward(self, positions: Positions):
        """(tau, z, ln |d(tau, z)/dx|), the pose left out."""
        internal = self.internal(positions)
        torsions, stiff = self.split(internal)
        return torsions, stiff, self.log_whitening - self.log_volume(internal)

    def inverse(self, torsions, stiff):
        """(positions in the chart's frame, ln |d(tau, z)/dx|)."""
        internal = self.join(torsions, stiff)
        return self.cartesian(internal), self.log_whitening - self.log_volume(internal)

    def slopes(
        self,
        internal: Float[Tensor, "*batch atoms 3"],
        positions: Positions,
        gradient: Float[Tensor, "*batch atoms 3"],
    ) -> tuple[Float[Tensor, "*batch torsions"], Float[Tensor, "*batch stiffs"]]:
        """d(f + ln |d(tau, z)/dx|)/d(tau, z) at internal coordinates, from their positions and df/dx there."""
        rate = self.rates(internal, positions, gradient)
        rate = rate.flatten(-2)
        return rate[..., self.at_free], rate[..., self.at_stiff] @ self.inverse_root.to(rate.dtype)

    def rates(
        self,
        internal: Float[Tensor, "*batch atoms 3"],
        positions: Positions,
        gradient: Float[Tensor, "*batch atoms 3"],
    ) -> Float[Tensor, "*batch atoms 3"]:
        """d(f - ln volume)/d(bond, angle, dihedral), the latter phase or amplitude where it stands for them.

        Without meaning where an atom has no such coordinate.
        """
        order = self.tree.order
        if apt(positions, gradient):
            rate = loops.torques(positions, gradient, self.refs, self.leads, order)
        else:
            rate = torques(positions[..., order, :], gradient[..., order, :], self.refs, self.below)
        rate[..., 1:, 0] -= 2 / internal[..., 1:, 0]
        rate[..., 2:, 1] -= 1 / torch.tan(internal[..., 2:, 1])
        return self.puckers.rates(internal, rate)


def _ties(whitening, molecule):
    """What a saved whitening says of the order of equivalent siblings; the first ones said nothing."""
    if "order" not in whitening:
        return [0] * molecule.atoms
    return whitening["order"].argsort().tolist()
