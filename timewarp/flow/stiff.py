"""The stiff coordinates given the torsions: p(z | tau), known from the energy and with nothing to learn.

About the relaxed geometry mu(tau) the energy is nearly a quadratic form P(tau): a constant part, and the curvature of
the pairs there, bounded, since a contact's curvature does not reach far. In the directions out of bounds, most of all
those of a turn of the peptide bond that brings two ends together, there is a wall on one side alone, and the law has
two widths (`skew`).

Not quite: stiff dihedrals have room to bend what hangs on them (a ring out of its plane shortens a bond across it, to
second order), so that they are drawn first, and the bonds and bends relax about them by one more Newton step before
their own noise is added; then the bonds once more about the bends. The amplitude of a ring comes before all of them:
what hangs on the ring turns with it, one way or the other by the phase, so that the other dihedrals relax about it.
Where such a step would be long, as many are taken as it needs: ends that a turn has brought together push the bends
ten standard deviations away.

| symbol | variable |
|---|---|
| delta = R - R(mu(tau)) in the order bonds, bends, dihedrals; stiff internal coordinates, nm and rad | |
| P = L L^T, with L of the bonds constant | lower |
| e ~ N(0, I), in the order of delta | noise, in the chart's order |
| e', e with long tails of levers and rings, and two widths along u_1, ... | lengthened, skewed |
| s of dihedrals, that step, or those, from e' = (0, 0, e'_amplitudes) | led |
| s, the Newton step -L_rr^-1 dS/dR of bonds and bends, or those, from e' = (0, 0, e'_dihedrals) | relaxed |
| s of bonds, and their step -L_bb^-1 dS/dR at e' = (0, e'_bends, e'_dihedrals) | stretched |
| delta = L^-T (e' + s) | push |
| ln |dz/de| = ln |dz/dR| - ln det L + ln |de'/de| | log_det |
"""

from __future__ import annotations

import copy
from math import log, pi

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.basin import Basin, definite
from timewarp.flow.bounding import bounded
from timewarp.flow.chart import DIHEDRAL, InternalChart
from timewarp.flow.curvature import Curvature
from timewarp.flow.response import Evaluated, Response
from timewarp.flow.settling import settled
from timewarp.flow.skew import pulled_back, skewed, straightened
from timewarp.flow.tails import LEVER, RING, lengthened, shortened, slope_before
from timewarp.state import Positions

CAP = 4.0  # length of a step that relaxes what was not drawn yet, in standard deviations: a clash asks for more
HEAVY = 4  # atoms of these that a turn about a bond moves, from which on it has long tails
NEAR = 0.3  # kT, twice what one Newton step would gain: from here on it takes more than one
FAR, ENOUGH = 4.0, 0.02  # the same where something relaxes about the noise of others, and where that ends
GIVING = 8  # steps that it takes at most


class Stiff:
    """p(z | tau) of one molecule.

    Args:
        chart: of the molecule; its `rest` is the constant part of P.
        response: mu(tau), and the slope of the energy.
        curvature: of the pairs, the other part.
    """

    def __init__(self, chart: InternalChart, response: Response, curvature: Curvature):
        self.chart, self.response, self.curvature = chart, response, curvature
        kind = chart.stiff.nonzero()[:, 1].cpu()
        bonds = (kind == 0).nonzero()[:, 0]
        self.bonds, self.soft, self.bends = bonds, curvature.rows.cpu(), int((kind == 1).sum())
        self.leads = len(chart.puckers)  # amplitudes, the last of the soft
        turns = (curvature.kind.cpu() == DIHEDRAL) & (chart.leads.cpu()[curvature.place.cpu()] < 0)
        turns &= torch.arange(self.softs) < self.softs - self.leads
        levers = turns & (curvature.heavy.cpu() >= HEAVY)
        rings = (curvature.kind.cpu() == DIHEDRAL) & torch.isin(curvature.place.cpu(), chart.puckers.hung.cpu())
        rings[self.softs - self.leads :] = True
        self.long = (levers | rings).nonzero()[:, 0]
        self.shapes = torch.where(rings, RING, LEVER)[self.long].to(chart.dtype)
        rest = chart.rest.cpu().double()
        # conformers that clash, as those of a strained ring, may leave no root: then the mean curvature stands in
        _, failed = torch.linalg.cholesky_ex(rest[bonds][:, bonds])
        stretching = (chart.curvature.cpu().double() if failed else rest)[bonds]
        root = torch.linalg.cholesky(stretching[:, bonds])
        across = torch.linalg.solve_triangular(root, stretching[:, self.soft], upper=False).T
        alone = rest[self.soft][:, self.soft] - across @ across.T
        likely = definite(chart.curvature.cpu().double()[self.soft][:, self.soft] - across @ across.T)
        dtype = chart.dtype
        self.root, self.across, self.alone = (t.to(dtype).contiguous() for t in (root, across, alone))
        half = torch.linalg.cholesky(likely)
        self.likely, self.unlikely = half.to(dtype), torch.linalg.inv(half).to(dtype)
        self.usual = likely.to(dtype)
        self.log_bonds = float(root.diagonal().log().sum())

    def on(self, chart: InternalChart) -> Stiff:
        """The same for the same chart on another device."""
        new, device = copy.copy(self), chart.root.device
        new.chart, new.response, new.curvature = chart, self.response.on(chart), self.curvature.to(device)
        new.curvature.chart = chart
        for name in ("bonds", "soft", "long", "shapes", "root", "across", "alone", "likely", "unlikely", "usual"):
            setattr(new, name, getattr(self, name).to(device))
        return new

    @property
    def softs(self) -> int:
        """Number of bends and dihedrals."""
        return len(self.soft)

    @property
    def cost(self) -> tuple[int, int]:
        """Evaluations of the energy: of `at` (more of those that go on or are lopsided), and of `push` or `pull`."""
        return self.response.steps + 1, 3 if self.leads else 2

    @torch.no_grad()
    def at(self, torsions: Float[Tensor, "count torsions"]) -> Basin:
        """The basin of each of these torsions: mu after the steps of the response and one with P, which it keeps.

        Where that step would be long the geometry is far from relaxed, and goes on.
        """
        mean = self.response(torsions)
        at = self.response.evaluate(torsions, mean)
        curvature = self.curvature(at.positions).add_(self.alone)
        lower = self._root(curvature)
        slope = self.whitened(lower, at.gradient)
        far = (~(slope.square().sum(1) < NEAR)).nonzero()[:, 0]
        start, mean = mean, mean - self.unwhitened(lower, slope)
        if len(far):
            known = Evaluated(*(part[far] for part in at)), lower[far]
            mean[far], positions = settled(self, torsions[far], start[far], known)
            curvature[far] = self.curvature(positions).add_(self.alone)
        return bounded(self, torsions, mean, curvature)

    @torch.no_grad()
    def free_energy(self, torsions: Float[Tensor, "count torsions"]) -> Float[Tensor, " count"]:
        """-ln of the integral of exp(-S) over the stiff coordinates, kT, by Laplace's method; up to a constant."""
        basin = self.at(torsions)
        found = self.response.evaluate(torsions, basin.mean)
        depth = found.energy + found.log_det - self._log_det(basin)
        return depth.double().nan_to_num(torch.inf, torch.inf, torch.inf)

    @torch.no_grad()
    def relaxed(self, torsions: Float[Tensor, "count torsions"], near: float = 0.0) -> Float[Tensor, "count stiffs"]:
        """The minimum of S given the torsions, as nearly as `settled` comes to it.

        A step that would gain less than half of `near` kT is not taken.
        """
        mean = self.response(torsions)
        return settled(self, torsions, mean, near=near)[0]

    def _root(self, curvature: Float[Tensor, "count soft soft"]) -> Float[Tensor, "count soft soft"]:
        """L of P; where P has no root, that of the chart's mean curvature."""
        lower, failed = torch.linalg.cholesky_ex(curvature)
        lower[(failed != 0) | ~lower.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)] = self.likely
        return lower

    def root_at(self, positions: Positions) -> Float[Tensor, "count soft soft"]:
        """L of P at these positions."""
        return self._root(self.curvature(positions).add_(self.alone))

    def whitened(
        self, lower: Float[Tensor, "count soft soft"], gradient: Float[Tensor, "count stiffs"],
        moving: int | None = None,
    ) -> Float[Tensor, "count stiffs"]:  # fmt: skip
        """L^-1 dS/dR, bonds first, from dS/dz; what is not finite counts as zero, and so do softs beyond `moving`."""
        moving = self.softs if moving is None else moving
        bonds, soft = self._whitened(lower, gradient.nan_to_num(0.0, 0.0, 0.0), moving)
        return torch.nn.functional.pad(torch.cat([bonds, soft], 1), (0, self.softs - moving))

    def unwhitened(
        self, lower: Float[Tensor, "count soft soft"], step: Float[Tensor, "count stiffs"]
    ) -> Float[Tensor, "count stiffs"]:
        """Of z, from one in the coordinates that `whitened` gives the slope in."""
        return self._unwhitened(lower, *step.split([len(self.bonds), self.softs], 1))

    @torch.no_grad()
    def push(self, basin: Basin, noise: Float[Tensor, "count stiffs"]) -> tuple[Tensor, Float[Tensor, " count"]]:
        """(z, ln |dz/de|) of e = `noise`."""
        soft, skewing = self._shaped(basin, noise[:, self.soft])
        soft = soft + self._led(basin, soft)
        by_bonds, by_bends = self._relaxed(basin, soft)
        soft = soft + torch.nn.functional.pad(by_bends, (0, soft.shape[1] - self.bends))
        bonds = noise[:, self.bonds] + self._stretched(basin, by_bonds, soft)
        return self._placed(basin, bonds, soft), self._log_det(basin) + skewing

    @torch.no_grad()
    def pull(self, basin: Basin, stiff: Float[Tensor, "count stiffs"]) -> tuple[Tensor, Float[Tensor, " count"]]:
        """(e, ln |dz/de|) of z = `stiff`: the inverse of `push`."""
        delta = (stiff - basin.mean) @ self.chart.inverse_root
        bonds, soft = delta[:, self.bonds], delta[:, self.soft]
        bonds = bonds @ self.root + soft @ self.across
        soft = (basin.lower.mT @ soft[..., None])[..., 0]
        by_bonds, by_bends = self._relaxed(basin, soft)
        noise = torch.empty_like(stiff)
        noise[:, self.bonds] = bonds - self._stretched(basin, by_bonds, soft)
        soft = soft - torch.nn.functional.pad(by_bends, (0, soft.shape[1] - self.bends)) - self._led(basin, soft)
        soft, skewing = straightened(soft, basin.axes, basin.widths)
        noise[:, self.soft], lengthening = shortened(soft, self.long, self.shapes)
        return noise, self._log_det(basin) + skewing + lengthening

    @torch.no_grad()
    def evaluate(
        self, basin: Basin, noise: Float[Tensor, "count stiffs"]
    ) -> tuple[Evaluated, Float[Tensor, " count"], Float[Tensor, "count stiffs"]]:
        """(what there is at z, ln |dz/de|, about the gradient with e of S - ln |dz/de|).

        How s changes with e is left out of the last.
        """
        stiff, stretch = self.push(basin, noise)
        found = self.response.evaluate(basin.torsions, stiff)
        slope = torch.empty_like(noise)
        slope[:, self.bonds], soft = self._whitened(basin.lower, found.gradient, self.softs)
        before = noise[:, self.soft]
        soft = pulled_back(soft, lengthened(before, self.long, self.shapes)[0], basin.axes, basin.widths)
        slope[:, self.soft] = slope_before(soft, before, self.long, self.shapes)
        return found, stretch, slope

    def _shaped(self, basin: Basin, soft: Tensor) -> tuple[Tensor, Tensor]:
        """(e', ln |de'/de|) of the soft coordinates of the noise."""
        long, lengthening = lengthened(soft, self.long, self.shapes)
        shaped, skewing = skewed(long, basin.axes, basin.widths)
        return shaped, skewing + lengthening

    def _log_det(self, basin: Basin) -> Tensor:
        return self.chart.log_whitening - self.log_bonds - basin.log_root

    def _placed(self, basin: Basin, bonds: Tensor, soft: Tensor) -> Tensor:
        return basin.mean + self._unwhitened(basin.lower, bonds, soft)

    def _unwhitened(self, lower: Tensor, bonds: Tensor, soft: Tensor) -> Tensor:
        soft = torch.linalg.solve_triangular(lower.mT, soft[..., None], upper=True)[..., 0]
        bonds = torch.linalg.solve_triangular(self.root.T, (bonds - soft @ self.across).T, upper=True).T
        delta = soft.new_empty(len(soft), self.chart.stiffs)
        delta[:, self.bonds], delta[:, self.soft] = bonds, soft
        return delta @ self.chart.root

    def _led(self, basin: Basin, soft: Tensor) -> Tensor:
        """s of the dihedrals, from the noise of the amplitudes alone; 0 in the places of the others."""
        if not self.leads:
            return torch.zeros_like(soft)
        count = self.softs - self.leads
        alone = torch.nn.functional.pad(soft[:, count:], (count, 0))
        stiff = self._placed(basin, soft.new_zeros(len(soft), len(self.bonds)), alone)
        step = self._given_way(basin, stiff, count)[1]
        return torch.nn.functional.pad(step[:, self.bends :], (self.bends, self.leads))

    def _relaxed(self, basin: Basin, soft: Tensor) -> tuple[Tensor, Tensor]:
        """s of bonds and bends, from the noise of the dihedrals alone."""
        dihedrals = torch.nn.functional.pad(soft[:, self.bends :], (self.bends, 0))
        stiff = self._placed(basin, soft.new_zeros(len(soft), len(self.bonds)), dihedrals)
        return self._given_way(basin, stiff, self.bends)

    def _given_way(self, basin: Basin, stiff: Tensor, moving: int) -> tuple[Tensor, Tensor]:
        """s of bonds and of the first `moving` soft coordinates, from where these have no noise and the others theirs.

        They have to go far where the others lean against a wall.
        """
        at = self.response.evaluate(basin.torsions, stiff)
        slopes = self._whitened(basin.lower, at.gradient, moving)
        by_bonds, by_soft = (_held(-slope) for slope in slopes)
        gain = torch.cat(slopes, 1).nan_to_num(0.0, 0.0, 0.0).square().sum(1)
        far = (gain > FAR).nonzero()[:, 0]
        if len(far):
            known = Evaluated(*(part[far] for part in at)), basin.lower[far]
            found = settled(self, basin.torsions[far], stiff[far], known, ENOUGH, moving, GIVING)[0]
            delta = (found - stiff[far]) @ self.chart.inverse_root
            soft = delta[:, self.soft]
            by_bonds[far] = delta[:, self.bonds] @ self.root + soft @ self.across
            by_soft[far] = (basin.lower[far].mT @ soft[..., None])[:, :moving, 0]
        return by_bonds, by_soft

    def _stretched(self, basin: Basin, bonds: Tensor, soft: Tensor) -> Tensor:
        """s of bonds, from what it was before the bends had their noise."""
        slope = self.response.slope(basin.torsions, self._placed(basin, bonds, soft))[1]
        return bonds + _held(-self._whitened(basin.lower, slope, 0)[0])

    def _whitened(self, lower: Tensor, gradient: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """L^-1 dS/dR of the bonds and the first `count` soft coordinates, from dS/dz."""
        gradient = gradient @ self.chart.root
        bonds = torch.linalg.solve_triangular(self.root, gradient[:, self.bonds].T, upper=False).T
        soft = gradient[:, self.soft[:count]] - bonds @ self.across[:count].T
        return bonds, torch.linalg.solve_triangular(lower[:, :count, :count], soft[..., None], upper=False)[..., 0]


def _held(step: Float[Tensor, "count n"]) -> Float[Tensor, "count n"]:
    """A step, no longer than `CAP`; one that is not finite is not taken.

    A wall that the coordinates drawn so far lean against asks for steps many times too long, in many coordinates.
    """
    step = step.nan_to_num(0.0, 0.0, 0.0)
    length = step.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return step * (CAP * torch.tanh(length / CAP) / length)


def standard_normal(noise: Float[Tensor, "*batch stiffs"]) -> Float[Tensor, "*batch"]:
    """ln N(e; 0, I) of e = `noise`."""
    return -0.5 * (noise.square() + log(2 * pi)).sum(-1)
