"""Torsion moves: turn one or two bonds by any angle while all stiff coordinates follow.

A batch of chains walks in chart coordinates: tau (free torsions) and u = z - mu(tau) (what thermal motion adds to the
relaxed stiff coordinates). Turning tau at fixed u has unit Jacobian, so that the ratio is that of the densities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.kernel import Energy
from timewarp.mcmc import accept
from timewarp.mcmc.chain import single_test
from timewarp.state import Positions, State


@runtime_checkable
class Chart(Protocol):
    torsions: int
    stiffs: int

    def forward(self, positions): ...

    def inverse(self, torsions, stiff): ...


@dataclass(frozen=True)
class TorsionState:
    """Torsions, noise and mean of the stiff coordinates, and what follows from them.

    `positions` are in the chart's frame; `log_density` is that of (tau, z) in the chart, up to a constant.
    """

    torsions: Float[Tensor, "chains torsions"]
    noise: Float[Tensor, "chains stiffs"]
    mean: Float[Tensor, "chains stiffs"]
    positions: Positions
    log_density: Float[Tensor, " chains"]
    energy: Float[Tensor, " chains"]

    @property
    def state(self) -> State:
        return State.at(self.positions)

    @property
    def tempered(self) -> Float[Tensor, " chains"]:
        """The part of the log density that a heat divides: all but that of the noise as N(0, 1)."""
        return self.log_density + 0.5 * self.noise.square().sum(1)

    def taken(self, index: Tensor, scale: Tensor) -> TorsionState:
        """Chain `index[i]` in place i; there are no velocities to scale."""
        return TorsionState(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    def put(self, index: Tensor, other: TorsionState) -> TorsionState:
        """Chain i of `other` in place `index[i]`, these in all other places."""
        parts = self.__dataclass_fields__
        return TorsionState(**{name: getattr(self, name).index_copy(0, index, getattr(other, name)) for name in parts})

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `Torsions.restore` reads it back."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Torsions:
    """The kernel.

    Args:
        chart: positions <-> (tau, z).
        response: mu(tau).
        energy: U/kT.
        stir: the stiff noise is refreshed as sqrt(1 - b^2) u + b xi with b uniform in (0, stir).
        turns: how many torsions may turn at once.
        heat: temperature of the walk in units of the target's (1 samples the target), one for all chains or one each.
    """

    chart: Chart
    response: Callable[[Tensor], Tensor]
    energy: Energy
    stir: float = 0.6
    turns: int = 2
    heat: float | Float[Tensor, " chains"] = 1.0

    exact: ClassVar[bool] = True
    max_tests: ClassVar[int] = 1

    def init(self, state: State) -> TorsionState:
        """The chains at their beginning.

        Raises:
            ValueError: if the positions or their energies are not finite.
        """
        accept.initial_energy(self.energy, state)
        return self._of(state.positions)

    def restore(self, tensors: dict[str, Tensor]) -> TorsionState:
        """The inverse of `TorsionState.tensors`."""
        return TorsionState(**tensors)

    def moved(self, state: TorsionState, positions: Positions, energy: Tensor) -> tuple[TorsionState, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        return self._of(positions), 2 * len(positions)

    def _of(self, positions: Positions) -> TorsionState:
        torsions, stiff, _ = self.chart.forward(positions)
        mean = self.response(torsions)
        return self._at(torsions, stiff - mean, mean)

    def begin(self, chains: int, rng: torch.Generator) -> TorsionState:
        """Chains at uniformly random torsions."""
        torsions = (2 * torch.rand(chains, self.chart.torsions, generator=rng, device=rng.device) - 1) * torch.pi
        mean = self.response(torsions)
        return self._at(torsions, torch.randn(mean.shape, generator=rng, device=rng.device), mean)

    @torch.no_grad()
    def step(self, state: TorsionState, rng: torch.Generator) -> tuple[TorsionState, dict[str, Any]]:
        chains, count = state.torsions.shape
        how: dict[str, Any] = {"generator": rng, "device": rng.device}
        # half of the steps go anywhere on the circle, half stay near; each is symmetric
        far = torch.rand(chains, 1, **how) < 0.5
        anywhere = 2 * torch.pi * torch.rand(chains, count, **how)
        near = 0.4 * torch.randn(chains, count, **how)
        order = torch.rand(chains, count, **how).argsort(1)
        chosen = order < torch.randint(1, self.turns + 1, (chains, 1), **how)
        change = torch.where(chosen, torch.where(far, anywhere, near), 0.0)
        torsions = torch.remainder(state.torsions + change + torch.pi, 2 * torch.pi) - torch.pi
        b = self.stir * torch.rand(chains, 1, **how)
        xi = torch.randn(state.noise.shape, **how)
        noise = (1 - b * b).sqrt() * state.noise + b * xi
        new = self._at(torsions, noise, self.response(torsions))
        # the noise move is reversible with respect to exp(-u^2/2), which is divided out of the target
        gain = new.log_density - state.log_density
        gauss = 0.5 * (new.noise.square().sum(1) - state.noise.square().sum(1))
        log_ratio = (gain + gauss) / self.heat
        # a chain that began in a clash leaves it for anything that is finite
        lost = state.log_density.isneginf() & new.log_density.isfinite()
        log_ratio = torch.where(lost, 0.0, log_ratio)
        zero = torch.zeros_like(log_ratio)
        accepted = accept.metropolis(zero, zero, log_ratio, rng)
        refused, state = state, _where(accepted, new, state)
        return state, single_test(accepted, state.energy, 2 * chains, refused)

    def _at(self, torsions, noise, mean):
        positions, log_det = self.chart.inverse(torsions, mean + noise)
        energy = self.energy(positions).double()
        log_density = (-energy - log_det).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        return TorsionState(torsions, noise, mean, positions, log_density, energy)

    def heated(self, heat: float | Float[Tensor, " chains"]) -> Torsions:
        return replace(self, heat=heat)


def _where(mask, a: TorsionState, b: TorsionState) -> TorsionState:
    def pick(x, y):
        return torch.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return TorsionState(**{name: pick(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__})
