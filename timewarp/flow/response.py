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

    def __call__(self, torsions: Float[Tensor, "batch torsions"]) -> Float[Tensor, "batch stiffs"]:
        """mu(tau); where gradients are wanted of it, they cost two more gradients of the energy a step."""
        z = torsions.new_zeros(len(torsions), self.chart.stiffs)
        for _ in range(self.steps):
            z = _Step.apply(torsions, z, self)
        return z

    def slope(self, torsions, stiff):
        """(U/kT + ln |d(tau, z)/dx|, its gradient with respect to z): minus the log density of the chart."""
        total, _, gradient = self.slopes(torsions, stiff)
        return total, gradient

    @torch.no_grad()
    def slopes(self, torsions, stiff):
        """As `slope`, with the gradient with respect to tau before that with respect to z."""
        internal = self.chart.join(torsions, stiff)
        positions = self.chart.cartesian(internal)
        with torch.enable_grad():
            x = positions.detach().requires_grad_()
            energy = self.energy(x)
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        total = energy.detach() + self.chart.log_whitening - self.chart.log_volume(internal)
        return total, *self.chart.slopes(internal, positions, gradient)


SPACING = 0.05  # of the differences that stand for second derivatives, in standard deviations


class _Step(torch.autograd.Function):
    """One Newton step z - damping * clamp(g(tau, z)), with g the gradient of S with respect to z.

    Backward needs a . dg/d(tau, z), which by the symmetry of second derivatives is the change of the gradient of S
    with respect to (tau, z) along a in z: a difference of two gradients, for an energy that gives only one.
    """

    @staticmethod
    def forward(ctx, torsions, z, response):
        g = response.slope(torsions, z)[1]
        ctx.save_for_backward(torsions, z, g)
        ctx.response = response
        return z - response.damping * g.nan_to_num(0.0, 0.0, 0.0).clamp(-response.cap, response.cap)

    @staticmethod
    def backward(ctx, grad):
        torsions, z, g = ctx.saved_tensors
        response = ctx.response
        along = torch.where(g.abs() < response.cap, grad, 0.0)  # also leaves out what is not finite
        size = along.norm(dim=-1, keepdim=True)
        step = torch.where(size > 0, SPACING * along / size, 0.0)
        (_, tau_up, z_up), (_, tau_down, z_down) = (response.slopes(torsions, z + s * step) for s in (1, -1))
        scale = response.damping * size / (2 * SPACING)
        by_tau = (scale * (tau_up - tau_down)).nan_to_num(0.0, 0.0, 0.0)
        by_z = (scale * (z_up - z_down)).nan_to_num(0.0, 0.0, 0.0)
        return -by_tau, grad - by_z, None
