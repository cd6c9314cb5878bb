"""Multiple-try Metropolis for proposals that do not depend on the present state (Liu, Liang and Wong 2000, JASA 95).

Of `width` proposals y_1 ... y_k one is picked with probability proportional to its weight w = mu/p, and accepted with

    alpha = min(1, sum_j w(y_j) / (sum_j w(y_j) - w(y) + w(x))).

The trial set of the move back may be the others, as they do not depend on where they were drawn from. It crosses more
seldom than `Independence` with the same proposals, which tests each of them; it pays where frames are kept and not
tests. Both are kept, so that this is a measurement and no belief.

| symbol | variable |
|---|---|
| ln w | log_w |
| sum over the trial set of the move back | log_sum_without |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.kernel import Energy, Proposal
from timewarp.mcmc import accept
from timewarp.mcmc.chain import Chain, single_test
from timewarp.state import Positions, State


@dataclass(frozen=True)
class MultipleTry:
    """Exact kernel for a `memoryless` proposal; a step draws `width` proposals a chain and makes one test.

    Attributes:
        energy: U/kT of a batch.
        proposal: p(x', v'), the same from everywhere.
        width: proposals of a test.
    """

    energy: Energy
    proposal: Proposal
    width: int = 8

    exact: ClassVar[bool] = True
    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"expected a width of at least 1 proposal, got {self.width}")
        if not self.proposal.memoryless:
            raise ValueError("expected a memoryless proposal, got one that depends on the positions; use Metropolis")

    def init(self, state: State) -> Chain:
        """The chains at their beginning.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies and densities.
        """
        chain = Chain.at(self.energy, state, self.proposal.channels)
        log_w = self._log_weight(chain.state, chain.energy, self.proposal(chain.state.positions).log_prob(chain.state))
        accept.require_finite("the proposal's log_prob of the initial state", log_w, "minimise the structure first")
        return chain

    def restore(self, tensors: dict[str, Tensor]) -> Chain:
        """The inverse of `Chain.tensors`."""
        return Chain.from_tensors(tensors)

    def moved(self, chain: Chain, positions: Positions, energy: Tensor) -> tuple[Chain, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        return chain.moved(positions, energy), 0

    @torch.no_grad()
    def step(self, chain: Chain, rng: torch.Generator) -> tuple[Chain, dict[str, Any]]:
        """One test in each chain; what is not finite is not picked."""
        old = chain.state.refreshed(rng) if self.proposal.channels else chain.state
        bound = self.proposal(old.positions)
        present = self._log_weight(old, chain.energy, bound.log_prob(old))
        tried, log_prob = bound.sample(self.width, rng)
        energy = self.energy(tried.positions.flatten(0, 1)).double().view(log_prob.shape)
        log_w = self._log_weight(tried, energy, log_prob)
        log_w = torch.where(log_w.isfinite(), log_w, -torch.inf)
        # the largest of ln w + Gumbel noise is a draw with probability proportional to w
        noise = -torch.rand(log_w.shape, generator=rng, dtype=torch.float64, device=log_w.device).log().neg().log()
        pick = torch.where(log_w.isneginf(), -torch.inf, log_w + noise).argmax(0)
        zero = torch.zeros_like(present)
        forward, back = log_w.logsumexp(0), log_sum_without(log_w, pick, present)
        accepted = accept.metropolis(zero, zero, forward - back, rng)
        chosen = (pick, torch.arange(len(pick), device=pick.device))
        state = tried[chosen].where(accepted, old)
        refused = replace(chain, state=old)
        chain = replace(chain, state=state, energy=torch.where(accepted, energy[chosen], chain.energy))
        return chain, single_test(accepted, chain.energy, energy.numel(), refused)

    @staticmethod
    def _log_weight(state: State, energy: Tensor, log_prob: Tensor) -> Tensor:
        return accept.velocity_log_prob(state.velocities) - energy.double() - log_prob.double()


def log_sum_without(
    log_w: Float[Tensor, "width chains"], pick: Int[Tensor, " chains"], present: Float[Tensor, " chains"]
) -> Float[Tensor, " chains"]:
    """ln of the sum of the weights that a move back chooses from: all but the one picked, and the present's."""
    others = log_w.scatter(0, pick[None], -torch.inf)
    return torch.logaddexp(others.logsumexp(0), present)
