"""A density on the circle: a rational-quadratic spline through the values of a Fourier series.

The logarithm of the density is given at equally spaced angles; the spline's bins have the mass of Simpson's rule and
its knots the density itself, so that it is smooth, periodic and exactly normalised, and has an exact inverse.
The spline is that of nflows (Durkan et al. 2019), with periodic ends.
"""

from __future__ import annotations

from math import log, pi

import torch
from jaxtyping import Float
from nflows.transforms.splines.rational_quadratic import rational_quadratic_spline
from torch import Tensor

LEAST_MASS = 1e-5  # of a bin
LEAST_SLOPE = 1e-4


class Circular:
    """Args:
    log_density: up to a constant, at 2 K equally spaced angles from -pi; K bins.
    """

    def __init__(self, log_density: Float[Tensor, "*batch grid"]):
        f = log_density - log_density.amax(-1, keepdim=True)
        f = torch.cat([f, f[..., :1]], -1)
        density = f.exp()
        mass = (density[..., :-1:2] + 4 * density[..., 1::2] + density[..., 2::2]) / 6
        self.heights = torch.log(mass + 1e-12)
        bins = mass.shape[-1]
        slope = (density[..., ::2] * bins / mass.sum(-1, keepdim=True)).clamp_min(1e-6)
        # softplus^-1, as nflows applies the softplus
        self.slopes = slope + torch.log(-torch.expm1(-slope))
        self.widths = torch.zeros_like(self.heights)

    def log_prob(self, angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """ln p of an angle in [-pi, pi], per radian; NaN of what is not finite."""
        known = angle.isfinite()  # the spline cannot look up what is not
        u = torch.where(known, (angle.double() + pi) / (2 * pi), 0.5).clamp(0.0, 1.0)
        log_prob = self._spline(u, inverse=False)[1] - log(2 * pi)
        return torch.where(known, log_prob, torch.nan).to(angle.dtype)

    def quantile(self, u: Float[Tensor, "*batch"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """(the angle below which a share u of the density lies, its ln p)."""
        x, log_det = self._spline(u.double(), inverse=True)
        return (2 * pi * x - pi).to(u.dtype), (-log_det - log(2 * pi)).to(u.dtype)

    def _spline(self, u: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """In double precision both ways: the knots are sums, and the root of the inverse's quadratic a difference."""
        if u.numel() == 0:
            return u, u
        knots = (self.widths.double(), self.heights.double(), self.slopes.double())
        return rational_quadratic_spline(
            u, *knots, inverse=inverse, min_bin_height=LEAST_MASS, min_derivative=LEAST_SLOPE
        )
