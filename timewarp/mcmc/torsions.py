"""Torsion moves: turn one or two bonds by any angle while all stiff coordinates follow.

A batch of chains walks in chart coordinates: tau (free torsions) and u = z - mu(tau) (what thermal motion adds to the
relaxed stiff coordinates). Turning tau at fixed u has unit Jacobian, so that the ratio is that of the densities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.state import Positions


class Chart(Protocol):
    torsions: int
    stiffs: int

    def forward(self, positions): ...

    def inverse(self, torsions, stiff): ...


@dataclass(frozen=True)
class TorsionState:
    """`log_density` is that of (tau, z) in the chart, up to a constant."""

    torsions: Float[Tensor, "chains torsions"]
    noise: Float[Tensor, "chains stiffs"]
    mean: Float[Tensor, "chains stiffs"]
    positions: Positions
    log_density: Float[Tensor, " chains"]


@dataclass(frozen=True)
class Torsions:
    """The kernel.

    Args:
        chart: positions <-> (tau, z).
        response: mu(tau).
        energy: U/kT.
        stir: the stiff noise is refreshed as sqrt(1 - b^2) u + b xi with b uniform in (0, stir).
        turns: how many torsions may turn at once.
        heat: temperature of the walk in units of the target's (1 samples the target).
    """

    chart: Chart
    response: Callable[[Tensor], Tensor]
    energy: Callable[[Positions], Tensor]
    stir: float = 0.6
    turns: int = 2
    heat: float = 1.0

    exact = True

    def init(self, state) -> TorsionState:
        torsions, stiff, _ = self.chart.forward(state.positions)
        mean = self.response(torsions)
        return self._at(torsions, stiff - mean, mean)

    def begin(self, chains: int, rng: torch.Generator) -> TorsionState:
        """Chains at uniformly random torsions."""
        torsions = (2 * torch.rand(chains, self.chart.torsions, generator=rng) - 1) * torch.pi
        mean = self.response(torsions)
        return self._at(torsions, torch.randn(mean.shape, generator=rng), mean)

    def step(self, state: TorsionState, rng: torch.Generator) -> tuple[TorsionState, dict[str, Any]]:
        chains, count = state.torsions.shape
        # half of the steps go anywhere on the circle, half stay near; each is symmetric
        far = torch.rand(chains, 1, generator=rng) < 0.5
        anywhere = 2 * torch.pi * torch.rand(chains, count, generator=rng)
        near = 0.4 * torch.randn(chains, count, generator=rng)
        order = torch.rand(chains, count, generator=rng).argsort(1)
        chosen = order < torch.randint(1, self.turns + 1, (chains, 1), generator=rng)
        change = torch.where(chosen, torch.where(far, anywhere, near), torch.zeros(()))
        torsions = torch.remainder(state.torsions + change + torch.pi, 2 * torch.pi) - torch.pi
        b = self.stir * torch.rand(chains, 1, generator=rng)
        xi = torch.randn(state.noise.shape, generator=rng)
        noise = (1 - b * b).sqrt() * state.noise + b * xi
        new = self._at(torsions, noise, self.response(torsions))
        # the noise move is reversible with respect to exp(-u^2/2), which is divided out of the target
        gain = new.log_density - state.log_density
        gauss = 0.5 * (new.noise.square().sum(1) - state.noise.square().sum(1))
        log_ratio = (gain + gauss) / self.heat
        accepted = torch.log(torch.rand(chains, generator=rng)) < log_ratio.nan_to_num(-torch.inf)
        return _where(accepted, new, state), {"accepted": accepted}

    def _at(self, torsions, noise, mean):
        positions, log_det = self.chart.inverse(torsions, mean + noise)
        log_density = -self.energy(positions) - log_det
        return TorsionState(torsions, noise, mean, positions, log_density.nan_to_num(-torch.inf, -torch.inf, -torch.inf))

    def heated(self, heat: float) -> Torsions:
        return replace(self, heat=heat)


def _where(mask, a: TorsionState, b: TorsionState) -> TorsionState:
    def pick(x, y):
        return torch.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return TorsionState(**{name: pick(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__})
