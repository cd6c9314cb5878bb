"""Where the stiff coordinates relax to when the torsions are given: a few Newton steps on the full energy.

In the whitened coordinates z the mean curvature is 1, so that `z <- z - grad(U/kT - ln volume)(z)` is a Newton step on
the full energy. It costs one gradient and needs no learning: the mean of z given the torsions transfers to any
molecule.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.chart import InternalChart
from timewarp.kernel import Energy, slope
from timewarp.state import Positions


class Evaluated(NamedTuple):
    """Of (tau, z): positions in the chart's frame, U/kT, ln |d(tau, z)/dx|, and d(U/kT + ln |d(tau, z)/dx|)/dz."""

    positions: Positions
    energy: Float[Tensor, " batch"]
    log_det: Float[Tensor, " batch"]
    gradient: Float[Tensor, "batch stiffs"]


class Response:
    """mu(tau), the relaxed stiff coordinates.

    Args:
        chart: of one molecule.
        energy: U/kT of positions, differentiable once.
        steps: Newton steps; each costs one gradient.
        damping: fraction of the Newton step taken.
        cap: largest change of one coordinate in a step, in standard deviations: a clash pushes no further.

    Attributes:
        asked: evaluations of the energy that this thread has made so far, with or without its gradient.
    """

    def __init__(
        self,
        chart: InternalChart,
        energy: Energy,
        steps: int = 2,
        damping: float = 0.8,
        cap: float = 1.5,
    ):
        self.chart, self.energy = chart, energy
        self.steps, self.damping, self.cap = steps, damping, cap
        self._asked = threading.local()  # draws may be made side by side

    def on(self, chart: InternalChart) -> Response:
        """The same response of another chart, or of the same one on another device."""
        return Response(chart, self.energy, self.steps, self.damping, self.cap)

    @property
    def asked(self) -> int:
        return getattr(self._asked, "count", 0)

    @torch.no_grad()
    def __call__(self, torsions: Float[Tensor, "batch torsions"]) -> Float[Tensor, "batch stiffs"]:
        """mu(tau); no gradient is kept."""
        z = self.chart.start(torsions)
        for _ in range(self.steps):
            g = self.evaluate(torsions, z).gradient
            z = z - self.damping * g.nan_to_num(0.0, 0.0, 0.0).clamp(-self.cap, self.cap)
        return z

    def _count(self, evaluations: int) -> None:
        self._asked.count = self.asked + evaluations

    def slope(self, torsions, stiff) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch stiffs"]]:
        """(U/kT + ln |d(tau, z)/dx|, its gradient with respect to z): minus the log density of the chart."""
        found = self.evaluate(torsions, stiff)
        return found.energy + found.log_det, found.gradient

    @torch.no_grad()
    def value(self, torsions, stiff) -> Float[Tensor, " batch"]:
        """U/kT + ln |d(tau, z)/dx|, without its gradient."""
        self._count(len(torsions))
        positions, log_det = self.chart.inverse(torsions, stiff)
        return self.energy(positions) + log_det

    @torch.no_grad()
    def evaluate(self, torsions: Float[Tensor, "batch torsions"], stiff: Float[Tensor, "batch stiffs"]) -> Evaluated:
        """Positions, energy, volume and slope at once, for one gradient of the energy."""
        self._count(len(torsions))
        internal = self.chart.join(torsions, stiff)
        positions = self.chart.cartesian(internal)
        energy, gradient = slope(self.energy, positions)
        log_det = self.chart.log_whitening - self.chart.log_volume(internal)
        _, by_stiff = self.chart.slopes(internal, positions, gradient)
        return Evaluated(positions, energy, log_det, by_stiff)
