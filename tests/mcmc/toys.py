"""Targets of known law, proposals of known density, and the K-S laws that the kernels are held to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from timewarp.kernel import run
from timewarp.mcmc import bulk_ess
from timewarp.state import State


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Separable:
    """exp(-U), U a sum over all coordinates; the first coordinate of the first atom has its own law."""

    atoms: int = 1
    barrier: float = 0.0
    tilt: float = 0.0
    mean: float = 0.0
    sigma: float = 1.0

    def first(self, x):
        if self.barrier:
            return self.barrier * (x * x - 1) ** 2 + self.tilt * x
        return 0.5 * ((x - self.mean) / self.sigma) ** 2

    def __call__(self, positions: Tensor) -> Tensor:
        flat = positions.flatten(-2)
        return self.first(flat[..., 0]) + 0.5 * ((flat[..., 1:] - self.mean) / self.sigma).square().sum(-1)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        grid = np.linspace(-12, 12, 48001)
        weight = np.exp(-self.first(grid))
        total = np.cumsum(weight) - 0.5 * weight
        return np.interp(x, grid, total / total[-1])

    def cdf_other(self, x: np.ndarray) -> np.ndarray:
        return stats.norm.cdf(x, self.mean, self.sigma)

    def draw(self, chains: int, rng: torch.Generator) -> Tensor:
        """Exact draws [chains, atoms, 3]."""
        x = self.mean + self.sigma * torch.randn(chains, self.atoms * 3, generator=rng, dtype=torch.float64)
        grid = np.linspace(-12, 12, 48001)
        u = torch.rand(chains, generator=rng, dtype=torch.float64).numpy()
        x[:, 0] = torch.as_tensor(np.interp(u, self.cdf(grid), grid))
        return x.view(chains, self.atoms, 3)


GAUSS = Separable(mean=0.3, sigma=0.8)
WELLS = Separable(barrier=2.0, tilt=0.5)


def normal_log_prob(z: Tensor) -> Tensor:
    return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum((-2, -1))


class Coupled:
    """p(x', v'|x): two affine couplings of N(0, I) and x' = m(x) + sigma(x) y, all asymmetric in x and x'."""

    memoryless = False
    channels = 3

    def __init__(self, sigma: float = 0.9):
        self.sigma = sigma  # small ones get stuck more often

    def __call__(self, positions: Tensor) -> CoupledAt:
        return CoupledAt(positions, self.sigma)


class CoupledAt:
    def __init__(self, x: Tensor, sigma: float):
        self.x = x
        self.mean = 0.3 * x + 0.3 * torch.sin(2 * x) + 0.1
        self.sigma = sigma + 0.5 * torch.sigmoid(3 * x)

    def positions_map(self, z_v):
        return 0.6 * torch.tanh(z_v + self.x), 0.8 * z_v

    def velocities_map(self, z_x):
        # on the right side of the wells v' says much of x', on the left nothing: sharing a v then shows
        right = torch.sigmoid(4 * (self.mean + self.sigma * z_x))
        return 0.1 * right, right + 0.2 * torch.tanh(self.x)

    def log_det(self, s_x, s_v):
        return (s_x + s_v + self.sigma.log()).sum((-2, -1))

    def sample(self, count: int, rng: torch.Generator) -> tuple[State, Tensor]:
        z_x, z_v = (torch.randn((count, *self.x.shape), generator=rng, dtype=self.x.dtype) for _ in range(2))
        base = normal_log_prob(z_x) + normal_log_prob(z_v)
        s_x, t_x = self.positions_map(z_v)
        y = z_x * s_x.exp() + t_x
        s_v, t_v = self.velocities_map(y)
        v = z_v * s_v.exp() + t_v
        return State(self.mean + self.sigma * y, v), base - self.log_det(s_x, s_v)

    def log_prob(self, state: State) -> Tensor:
        y = (state.positions - self.mean) / self.sigma
        s_v, t_v = self.velocities_map(y)
        z_v = (state.velocities - t_v) * (-s_v).exp()
        s_x, t_x = self.positions_map(z_v)
        z_x = (y - t_x) * (-s_x).exp()
        return normal_log_prob(z_x) + normal_log_prob(z_v) - self.log_det(s_x, s_v)


class Fixed:
    """A memoryless p(x', v'): x' ~ N(mean, scale^2), v' = x'-dependent normal, so that they are coupled."""

    memoryless = True

    def __init__(self, mean: float = 0.0, scale: float = 1.3, channels: int = 3):
        self.mean, self.scale, self.channels = mean, scale, channels
        self.calls = 0

    def __call__(self, positions: Tensor) -> Fixed:
        self.calls += 1
        bound = type(self)(self.mean, self.scale, self.channels)
        bound.x = positions
        return bound

    def log_prob(self, state: State) -> Tensor:
        z = (state.positions - self.mean) / self.scale
        log_prob = normal_log_prob(z) - math.log(self.scale) * z.shape[-1] * z.shape[-2]
        if self.channels:
            log_prob = log_prob + normal_log_prob(state.velocities - torch.tanh(2 * z[..., : self.channels]))
        return log_prob

    def sample(self, count: int, rng: torch.Generator) -> tuple[State, Tensor]:
        shape = (count, *self.x.shape)
        z = torch.randn(shape, generator=rng, dtype=self.x.dtype)
        v = torch.randn((*shape[:-1], self.channels), generator=rng, dtype=self.x.dtype)
        state = State(self.mean + self.scale * z, v + torch.tanh(2 * z[..., : self.channels]))
        return state, self.log_prob(state)


class Discrete:
    """Three places; p(.|x) is a row of a matrix: everything can be computed exactly."""

    memoryless = False
    channels = 0
    table = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.7, 0.2, 0.1]], dtype=torch.float64)
    pi = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    def energy(self, positions):
        return -self.pi[positions[..., 0, 0].long()].log()

    def __call__(self, positions):
        row = Discrete()
        row.p = self.table[positions[:, 0, 0].long()]
        return row

    def log_prob(self, state):
        return self.p.gather(1, state.positions[:, 0, :1].long())[:, 0].log()

    def sample(self, count, rng):
        place = torch.multinomial(self.p, count, replacement=True, generator=rng).T
        log_prob = self.p.gather(1, place.T).T.log()
        positions = place.double()[..., None, None].expand(*place.shape, 1, 3)
        return State(positions, positions[..., :0]), log_prob

    @classmethod
    def single(cls):
        """The transition matrix of one test, and its part that is accepted."""
        flow = cls.pi[:, None] * cls.table
        passed = cls.table * (flow.T / flow).clamp(max=1)
        return passed + torch.diag(1 - passed.sum(1)), passed


def at_place(place, chains):
    return State.at(torch.full((chains, 1, 3), float(place), dtype=torch.float64))


def series(kernel, state, tests: int, rng: torch.Generator) -> Tensor:
    """Positions [tests, chains, atoms, 3] after each single test: the chain in its own time, whatever the width."""
    chains = len(state.state.positions)
    out = state.state.positions.new_full((tests, *state.state.positions.shape), torch.nan)
    clock = torch.zeros(chains, dtype=torch.int64)
    everyone = torch.arange(chains)
    steps = run(kernel, state, tests, rng)
    while (clock < tests).any():
        old = state.state.positions
        state, info = next(steps)
        for j in range(int(info["tested"].max())):
            now = (j < info["tested"]) & (clock + j < tests)
            new = info["accepted"] & (j == info["tested"] - 1)
            value = torch.where(new[:, None, None], state.state.positions, old)
            out[(clock + j)[now], everyone[now]] = value[now]
        clock = clock + info["tested"]
    return out


def ks(sample, cdf, count: float) -> float:
    """p-value of the K-S statistic for `count` independent draws."""
    distance = stats.kstest(np.asarray(sample).ravel(), cdf).statistic
    root = math.sqrt(count)
    return float(stats.kstwobign.sf(distance * (root + 0.12 + 0.11 / root)))


def invariance(kernel, target: Separable, tests: int = 20, chains: int = 8000, seed: int = 0) -> float:
    """p-value of: chains that start in the target's law are still in it after `tests` tests (independent draws)."""
    rng = seeded(seed)
    state = kernel.init(State.at(target.draw(chains, rng), 3, rng))
    x = series(kernel, state, tests, rng)[-1].flatten(1)
    return min(1.0, 2 * min(ks(x[:, 0], target.cdf, chains), ks(x[:, 1], target.cdf_other, chains)))


def ergodicity(kernel, target: Separable, tests: int, chains: int = 50, seed: int = 1, at: float = 2.0) -> float:
    """p-value of: chains that start far off come to the target's law (K-S with the effective sample size)."""
    rng = seeded(seed)
    start = torch.full((chains, target.atoms, 3), at, dtype=torch.float64)
    x = series(kernel, kernel.init(State.at(start, 3, rng)), tests, rng)[tests // 5 :].flatten(2)
    p = []
    for i, cdf in ((0, target.cdf), (1, target.cdf_other)):
        trace = x[..., i].T.numpy()
        p.append(ks(trace, cdf, min(bulk_ess(trace), trace.size)))
    return min(1.0, 2 * min(p))
