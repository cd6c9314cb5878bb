"""Split Hamiltonian Monte Carlo about a Gaussian: the Gaussian part turns exactly, the rest kicks.

For targets exp(-|u|^2/2 - lambda R(u)) with R small the Gaussian's own motion is a rotation in the plane of noise and
momentum, whose angle is the time. It costs nothing, so that one gradient of R carries u a quarter of the circle
(Shahbaba et al. 2014; Beskos et al. 2011).

| symbol | variable |
|---|---|
| u, N(0, I) where R = 0 | noise |
| p ~ N(0, I), fresh | momenta |
| R(u), dR/du | residual, gradient |
| lambda | share |
| theta | angle |
| a = tan(theta/2), exact for a linear R | kick |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timewarp.mcmc import accept

Noise = Float[Tensor, "count stiffs"]


class Point(NamedTuple):
    """Where a path is: u, R(u) (float64; +inf where it is not known), dR/du, and what else is known of it.

    A gradient that is only near the true one costs acceptance, not exactness: the move stays reversible and keeps the
    volume whatever function of u it kicks with.
    """

    noise: Noise
    residual: Float[Tensor, " count"]
    gradient: Noise
    known: tuple[Tensor, ...] = ()


Residual = Callable[[Noise], Point]


def turned(
    residual: Residual, old: Point, share: float, angle: float, rng: torch.Generator
) -> tuple[Point, Bool[Tensor, " count"]]:
    """One move that leaves exp(-|u|^2/2 - share R(u)) invariant and is reversible, for one evaluation of R.

        p <- p - a lambda dR/du;  (u, p) <- (u cos + p sin, p cos - u sin)(theta);  p <- p - a lambda dR/du

    accepted with min(1, exp(H - H')), H = |u|^2/2 + |p|^2/2 + lambda R. What is not finite is rejected.

    Returns:
        the new points, and which of them moved.
    """
    kick = math.tan(angle / 2) * share
    momenta = torch.randn(old.noise.shape, generator=rng, dtype=old.noise.dtype, device=rng.device).to(old.noise.device)
    half = momenta - kick * old.gradient
    new = residual(math.cos(angle) * old.noise + math.sin(angle) * half)
    end = math.cos(angle) * half - math.sin(angle) * old.noise - kick * new.gradient
    before, after = _hamiltonian(old, momenta, share), _hamiltonian(new, end, share)
    accepted = accept.metropolis(before, after, torch.zeros_like(before), rng)

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(accepted.view(-1, *[1] * (a.ndim - 1)), a, b)

    noise, value, gradient = (chosen(a, b) for a, b in zip(new[:3], old[:3], strict=True))
    known = tuple(chosen(a, b) for a, b in zip(new.known, old.known, strict=True))
    return Point(noise, value, gradient, known), accepted


def _hamiltonian(at: Point, momenta: Noise, share: float) -> Float[Tensor, " count"]:
    return 0.5 * (at.noise.double().square() + momenta.double().square()).sum(-1) + share * at.residual
