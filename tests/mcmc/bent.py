"""A target of known law on a circle times a banana, and a factored proposal that is wrong in every way it can be."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from timewarp.kernel import Given, Move, Placed
from timewarp.state import State

from .toys import ks

GRID = np.linspace(-math.pi, math.pi, 20001)


def normal(e: Tensor) -> Tensor:
    return -0.5 * e.square() - 0.5 * math.log(2 * math.pi)


class Bent:
    """x = (tau, y1, y2), one atom: tau ~ exp(f(tau)); y1 | tau normal; y2 | y1, tau normal about a parabola of y1."""

    def f(self, tau):
        return 0.9 * _cos(tau - 0.7) + 0.5 * _cos(2 * tau)

    log_norm = float(np.log(np.trapezoid(np.exp(0.9 * np.cos(GRID - 0.7) + 0.5 * np.cos(2 * GRID)), GRID)))

    def first(self, tau):
        return 0.5 * torch.sin(tau), 0.8 + 0.3 * torch.cos(tau)

    def second(self, tau, y1):
        return 0.45 * (y1.square() - 1) + 0.5 * torch.cos(tau), 0.9

    def errors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tau in (-pi, pi], and two numbers that are N(0, 1)."""
        tau, y1, y2 = x[..., 0, :].unbind(-1)
        (m1, s1), (m2, s2) = self.first(tau), self.second(tau, y1)
        return _wrap(tau), (y1 - m1) / s1, (y2 - m2) / s2

    def __call__(self, positions: Tensor) -> Tensor:
        """-ln of the density: Z = 1."""
        tau, e1, e2 = self.errors(positions)
        scale = self.first(tau)[1].log() + math.log(0.9)
        return -(self.f(tau) - self.log_norm + normal(e1) + normal(e2) - scale)

    def cdf(self, tau):
        weight = np.exp(self.f(GRID))
        total = np.cumsum(weight) - 0.5 * weight
        return np.interp(tau, GRID, total / total[-1])

    def draw(self, chains: int, rng: torch.Generator) -> Tensor:
        u, e1, e2 = torch.rand(chains, generator=rng).double(), *torch.randn(2, chains, generator=rng).double()
        tau = torch.as_tensor(np.interp(u.numpy(), self.cdf(GRID), GRID))
        m1, s1 = self.first(tau)
        y1 = m1 + s1 * e1
        m2, s2 = self.second(tau, y1)
        return torch.stack([tau, y1, m2 + s2 * e2], -1)[:, None]

    def p_value(self, x: Tensor) -> float:
        """Of K-S for each of the three coordinates and for the products of two, for independent rows of x."""
        tau, e1, e2 = (t.numpy() for t in self.errors(x))
        n = len(tau)
        p = [ks(tau, self.cdf, n), ks(e1, stats.norm.cdf, n), ks(e2, stats.norm.cdf, n)]
        for product in (e1 * e2, e1 * np.sin(tau), e2 * np.sin(tau), e2 * (e1**2 - 1)):
            z = abs(product.mean()) * math.sqrt(n) / product.std()
            p.append(2 * stats.norm.sf(z))
        return min(1.0, len(p) * min(p))


def _cos(t):
    return torch.cos(t) if isinstance(t, Tensor) else np.cos(t)


def _wrap(t):
    return math.pi - torch.remainder(math.pi - t, 2 * math.pi)


class Straight:
    """q(tau) = (1 + cos(tau) / 2) / 2 pi, and noise that is carried along a line; y2 is stretched besides."""

    cost = 2, 1
    noises = 2

    def __init__(self, energy):
        self.energy = energy
        self.evaluations = 0

    def line(self, tau):
        """Centre and scale of (y1, y2)."""
        centre = torch.stack([0.3 * torch.sin(tau), 0.3 * torch.cos(tau)], -1)
        return centre, torch.stack([1.0 + 0.1 * torch.sin(tau), 1.2 + 0 * tau], -1)

    def _given(self, tau):
        self.evaluations += self.cost[0] * len(tau)
        return Given(tau, torch.log((1 + 0.5 * torch.cos(tau)) / (2 * math.pi)), self.line(tau))

    def draw(self, count, rng):
        cdf = (GRID + math.pi + 0.5 * np.sin(GRID)) / (2 * math.pi)
        u = torch.rand(count, generator=rng).double()
        return self._given(torch.as_tensor(np.interp(u.numpy(), cdf, GRID)))

    def given(self, positions):
        tau = _wrap(positions[:, 0, 0])
        centre, scale = self.line(tau)
        return self._given(tau), (positions[:, 0, 1:] - centre) / scale

    def placed(self, given, noise):
        self.evaluations += self.cost[1] * len(noise)
        centre, scale = given.basin
        y = centre + scale * noise
        positions = torch.cat([given.torsions[:, None], y], -1)[:, None]
        tau, e1, e2 = BENT.errors(positions)
        slope = torch.stack([e1 / BENT.first(tau)[1] - 0.9 * y[:, 0] * e2 / 0.9, e2 / 0.9], -1)
        return Placed(positions, self.energy(positions), -scale.log().sum(-1), scale * slope)


BENT = Bent()


def nudge(state: State, rng: torch.Generator) -> Move:
    """A local symmetric move."""
    step = 0.7 * torch.randn(state.positions.shape, generator=rng, dtype=state.positions.dtype)
    return Move(State(state.positions + step, state.velocities), step.new_zeros(len(step)))
