"""Metropolis-Hastings with a conditional proposal that has auxiliary velocities, several proposals at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.kernel import Energy, Proposal
from timewarp.mcmc import accept
from timewarp.mcmc.chain import Chain
from timewarp.state import Positions, State


@dataclass(frozen=True)
class Metropolis:
    """Exact kernel for mu(x, v) = exp(-U(x)) N(v; 0, I): refresh v, propose, accept; the first accepted wins.

    A step draws `width` proposals (x', v') ~ p(.|x) and `width` velocities v ~ N(0, I) for each chain, and tests them
    in order with

        alpha = min(1, mu(x', v') p(x, v|x') / (mu(x, v) p(x', v'|x))).

    **Time.** As long as tests fail, x stays, so proposals drawn from the same x are what a chain with one proposal at
    a time would draw. A step in which the k-th is the first accepted *is* k steps of that chain: k - 1 rejections,
    which leave x, and an acceptance. A step in which none is accepted is `width` rejections. Averages over the target
    are therefore averages over tests: the old positions count `tested - accepted` times, then the new ones
    once if `accepted`. With each step counted once the chain is biased towards states that are easy to leave
    (with a large width it is the jump chain, of law pi(x) P(accept | x)). For the same reason a mixture with other
    kernels must hand over after a fixed number of tests, not after an acceptance: `Mixture` wants `width` 1.

    **Velocities.** Each test has its own v. One v shared by all tests of a step would be kept until something is
    accepted, so that the waiting time is E[1/a(x, v)] instead of 1/E[a(x, v)]: the target is not left invariant.

    Attributes:
        energy: U/kT of a batch.
        proposal: p(x', v'|x).
        width: proposals at once, for each chain.
    """

    energy: Energy
    proposal: Proposal
    width: int = 1

    exact: ClassVar[bool] = True

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"expected a width of at least 1 proposal, got {self.width}; 1 is the plain chain")

    @property
    def max_tests(self) -> int:
        """The most proposals that a step tests in one chain."""
        return self.width

    def init(self, state: State) -> Chain:
        """The chains at their beginning.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies.
        """
        return Chain.at(self.energy, state, self.proposal.channels)

    def restore(self, tensors: dict[str, Tensor]) -> Chain:
        """The inverse of `Chain.tensors`."""
        return Chain.from_tensors(tensors)

    def moved(self, chain: Chain, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Chain, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        return chain.moved(positions, energy), 0

    @torch.no_grad()
    def step(self, chain: Chain, rng: torch.Generator) -> tuple[Chain, dict[str, Any]]:
        """Up to and with the first acceptance, at most `width` tests in each chain.

        The info's `proposed_energy` [width, chains] is U/kT of all proposals, the tested first.
        """
        x = chain.state.positions
        proposed, forward = self.proposal(x).sample(self.width, rng)
        velocities = _refreshed(x, self.width, self.proposal.channels, rng)
        flat = proposed.positions.flatten(0, 1)
        present = State(x.expand(self.width, *x.shape).flatten(0, 1), velocities.flatten(0, 1))
        backward = self.proposal(flat).log_prob(present).view(forward.shape)
        energies = self.energy(flat).double().view(forward.shape)
        log_ratio = _log_ratio(velocities, forward, proposed.velocities, backward)
        passed = accept.metropolis(chain.energy.expand_as(energies), energies, log_ratio, rng)

        accepted = passed.any(0)
        tested = torch.where(accepted, passed.int().argmax(0) + 1, self.width)
        last = (tested - 1, torch.arange(len(x), device=x.device))
        refused = replace(chain, state=State(x, velocities[last]))
        state = proposed[last].where(accepted, refused.state)
        chain = Chain(state, torch.where(accepted, energies[last], chain.energy))
        return chain, {
            "tested": tested,
            "accepted": accepted,
            "energy": chain.energy,
            "proposed_energy": energies,
            "evaluations": energies.numel(),
            **({"refused": refused} if self.width == 1 else {}),
        }


def _refreshed(x: Positions, width: int, channels: int, rng: torch.Generator) -> Tensor:
    return torch.randn((width, *x.shape[:-1], channels), generator=rng, dtype=x.dtype, device=x.device)


def _log_ratio(velocities, forward, proposed_velocities, backward) -> Tensor:
    """ln N(v') p(x, v|x') - ln N(v) p(x', v'|x)."""
    backward = backward.double() + accept.velocity_log_prob(proposed_velocities)
    return backward - forward.double() - accept.velocity_log_prob(velocities)
