"""Independence Metropolis-Hastings: proposals that do not depend on the present state, drawn in advance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.kernel import Energy, Proposal
from timewarp.mcmc import accept
from timewarp.mcmc.chain import Chain, single_test
from timewarp.mcmc.counter import Counter
from timewarp.state import Positions, State

NONE = torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True)
class Queue:
    """The present of the chains, and `width` proposals waiting for each of them.

    Attributes:
        present: state and energy.
        log_net: ln p(x, v) - ln N(v; 0, I) of the present, p the proposal's density.
        waiting: states of the proposals; those before `next` have been tested.
        energy_waiting: U/kT of the proposals.
        log_net_waiting: as `log_net`.
        next: the proposal to be tested next; the width when none is left.
        kept: torsions that the proposals share with the present; 0 but in `Regrowth`.
        seeds: of the proposals after these, in `Annealed`; none where they are not drawn yet.
    """

    present: Chain
    log_net: Float[Tensor, " chains"]
    waiting: State
    energy_waiting: Float[Tensor, "width chains"]
    log_net_waiting: Float[Tensor, "width chains"]
    next: int
    kept: int = 0
    seeds: Int[Tensor, " parts"] = NONE

    @property
    def state(self) -> State:
        return self.present.state

    @property
    def energy(self) -> Float[Tensor, " chains"]:
        return self.present.energy

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `from_tensors` reads it back."""
        return self.present.tensors() | {
            "log_net": self.log_net,
            "waiting.positions": self.waiting.positions,
            "waiting.velocities": self.waiting.velocities,
            "waiting.energy": self.energy_waiting,
            "waiting.log_net": self.log_net_waiting,
            "next": torch.tensor(self.next),
            "kept": torch.tensor(self.kept),
            "seeds": self.seeds,
        }

    @classmethod
    def from_tensors(cls, flat: dict[str, Tensor]) -> Queue:
        """The inverse of `tensors`."""
        return cls(
            Chain.from_tensors(flat),
            flat["log_net"],
            State(flat["waiting.positions"], flat["waiting.velocities"]),
            flat["waiting.energy"],
            flat["waiting.log_net"],
            int(flat["next"]),
            int(flat["kept"]),
            flat.get("seeds", NONE),
        )


@dataclass(frozen=True)
class Independence:
    """Exact kernel for a `memoryless` proposal p(x', v'); each step tests one proposal in each chain.

    alpha = min(1, w(x', v') / w(x, v)) with w(x, v) = exp(-U(x)) N(v; 0, I) / p(x, v).

    Proposals are independent of the present state and of one another, so those that wait stay valid whatever is
    accepted: they are drawn and evaluated `width` at once, each is tested exactly once, and nothing is thrown away.
    The velocities of the present are refreshed whenever the queue is filled, a time that no state decides.

    Attributes:
        energy: U/kT of a batch.
        proposal: p(x', v'), the same from everywhere; its `cost`, if it has one, are the energy evaluations that a
            draw or a density takes, or `asked` those that it has made so far.
        width: proposals drawn at once, for each chain.
    """

    energy: Energy
    proposal: Proposal
    width: int = 128

    exact: ClassVar[bool] = True
    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"expected a width of at least 1 proposal, got {self.width}")
        if not self.proposal.memoryless:
            raise ValueError("expected a memoryless proposal, got one that depends on the positions; use Metropolis")

    def init(self, state: State) -> Queue:
        """The chains at their beginning, with an empty queue.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies and densities.
        """
        present = Chain.at(self.energy, state, self.proposal.channels)
        log_net = self._log_net(present.state)
        accept.require_finite("the proposal's log_prob of the initial state", log_net, "minimise the structure first")
        positions, velocities = (
            t.expand(self.width, *t.shape).clone() for t in (present.state.positions, present.state.velocities)
        )
        empty = log_net.new_full((self.width, len(log_net)), torch.nan)
        return Queue(present, log_net, State(positions, velocities), empty, empty, self.width)

    def restore(self, tensors: dict[str, Tensor]) -> Queue:
        """The inverse of `Queue.tensors`."""
        return Queue.from_tensors(tensors)

    def moved(self, queue: Queue, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Queue, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        present, counter = queue.present.moved(positions, energy), Counter(self.proposal)
        queue = replace(queue, present=present, log_net=self._log_net(present.state))
        return queue, counter.spent(self._cost * len(energy))

    @property
    def _cost(self) -> int:
        return getattr(self.proposal, "cost", 0)

    @torch.no_grad()
    def step(self, queue: Queue, rng: torch.Generator) -> tuple[Queue, dict[str, Any]]:
        """One test in each chain."""
        evaluations = 0
        if queue.next >= self.width:
            queue, evaluations = self._filled(queue, rng)
        k, present = queue.next, queue.present
        energy, log_net = queue.energy_waiting[k], queue.log_net_waiting[k]
        accepted = accept.metropolis(present.energy, energy, queue.log_net - log_net, rng)
        refused = replace(queue, next=k + 1)
        present = Chain(queue.waiting[k].where(accepted, present.state), torch.where(accepted, energy, present.energy))
        log_net = torch.where(accepted, log_net, queue.log_net)
        queue = replace(queue, present=present, log_net=log_net, next=k + 1)
        return queue, single_test(accepted, present.energy, evaluations, refused)

    def _filled(self, queue: Queue, rng: torch.Generator) -> tuple[Queue, int]:
        present, log_net, usual, counter = queue.present, queue.log_net, 0, Counter(self.proposal)
        if self.proposal.channels:
            present = replace(present, state=present.state.refreshed(rng))
            log_net, usual = self._log_net(present.state), self._cost * len(log_net)
        waiting, log_prob = self.proposal(present.state.positions).sample(self.width, rng)
        energy = self.energy(waiting.positions.flatten(0, 1)).double().view(log_prob.shape)
        log_net_waiting = log_prob.double() - accept.velocity_log_prob(waiting.velocities)
        evaluations = energy.numel() + counter.spent(usual + self._cost * energy.numel())
        return Queue(present, log_net, waiting, energy, log_net_waiting, 0), evaluations

    @torch.no_grad()
    def _log_net(self, state: State) -> Float[Tensor, " chains"]:
        log_prob = self.proposal(state.positions).log_prob(state)
        return log_prob.double() - accept.velocity_log_prob(state.velocities)
