"""Metropolis-Hastings with any move at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.kernel import Energy, Move
from timewarp.mcmc import accept
from timewarp.mcmc.chain import Chain, single_test
from timewarp.state import Positions, State


@dataclass(frozen=True)
class Propose:
    """Exact kernel for exp(-U(x)) N(v; 0, I): refresh v, call `move`, accept with

        ln alpha = U(x) - U(x') + ln N(v') - ln N(v) + Move.log_ratio.

    `move(state, rng)` takes the whole batch of chains. Its `log_ratio`, ln q(x|x') - ln q(x'|x), is ADDED; it is the
    log-determinant of the Jacobian for a deterministic involution and 0 for a symmetric move. A move without
    velocities leaves them as they are.

    Attributes:
        energy: U/kT of a batch.
        move: (state, rng) -> Move.
        channels: the width of the velocities that `move` wants.
    """

    energy: Energy
    move: Callable[[State, torch.Generator], Move]
    channels: int = 0

    exact: ClassVar[bool] = True
    max_tests: ClassVar[int] = 1

    def init(self, state: State) -> Chain:
        """The chains at their beginning.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies.
        """
        return Chain.at(self.energy, state, self.channels)

    def restore(self, tensors: dict[str, Tensor]) -> Chain:
        """The inverse of `Chain.tensors`."""
        return Chain.from_tensors(tensors)

    def moved(self, chain: Chain, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Chain, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        return chain.moved(positions, energy), 0

    @torch.no_grad()
    def step(self, chain: Chain, rng: torch.Generator) -> tuple[Chain, dict[str, Any]]:
        """One test in each chain."""
        old = chain.state.refreshed(rng)
        new, log_ratio = self.move(old, rng)
        velocity_ratio = accept.velocity_log_prob(new.velocities) - accept.velocity_log_prob(old.velocities)
        energy = self.energy(new.positions).double()
        accepted = accept.metropolis(chain.energy, energy, log_ratio + velocity_ratio, rng)
        refused = replace(chain, state=old)
        chain = replace(chain, state=new.where(accepted, old), energy=torch.where(accepted, energy, chain.energy))
        return chain, single_test(accepted, chain.energy, energy.numel(), refused)
