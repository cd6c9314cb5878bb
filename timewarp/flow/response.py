"""Where the stiff coordinates relax to when the torsions are given: a few Newton steps on the full energy.

In the whitened coordinates z the bonded energy is |z|^2/2, so that `z <- z - grad(U/kT - ln volume)(z)` is a Newton
step on the full energy with the bonded curvature. It costs one gradient and needs no learning: the mean of z
given the torsions transfers to any molecule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.chart import InternalChart
from timewarp.state import Positions


class Response:
    """mu(tau), the relaxed stiff coordinates.

    Args:
        chart: of one molecule.
        energy: U/kT of positions, differentiable once.
        steps: Newton steps; each costs one gradient.
        damping: fraction of the Newton step taken.
        cap: largest change of one coordinate in a step, in standard deviations: a clash pushes no further.
    """

    def __init__(
        self,
        chart: InternalChart,
        energy: Callable[[Positions], Tensor],
        steps: int = 2,
        damping: float = 0.8,
        cap: float = 1.5,
    ):
        self.chart, self.energy = chart, energy
        self.steps, self.damping, self.cap = steps, damping, cap

    def on(self, chart: InternalChart) -> Response:
        """The same response of another chart, or of the same one on another device."""
        return Response(chart, self.energy, self.steps, self.damping, self.cap)

    @torch.no_grad()
    def __call__(self, torsions: Float[Tensor, "batch torsions"]) -> Float[Tensor, "batch stiffs"]:
        z = torsions.new_zeros(len(torsions), self.chart.stiffs)
        for _ in range(self.steps):
            g = self.slope(torsions, z)[1].nan_to_num(0.0, 0.0, 0.0)
            z = z - self.damping * g.clamp(-self.cap, self.cap)
        return z

    def slope(self, torsions, stiff):
        """(U/kT + ln |d(tau, z)/dx|, its gradient with respect to z): minus the log density of the chart."""
        with torch.enable_grad():
            stiff = stiff.detach().requires_grad_()
            positions, log_det = self.chart.inverse(torsions.detach(), stiff)
            total = self.energy(positions) + log_det
            (gradient,) = torch.autograd.grad(total.sum(), stiff)
        return total.detach(), gradient
