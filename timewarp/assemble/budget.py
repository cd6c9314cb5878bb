"""What a flow gives for a budget of energy evaluations: draws, the exact chain over them, and importance resampling.

Every evaluation is counted, that of an energy with its gradient as one. A draw of the internal flow costs one energy
and one gradient for each Newton step of its relaxed coordinates (4 in all); `Counted` measures it rather than
believing this. The published figures (SNIS) count one evaluation a draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.assemble.scores import Sample
from timewarp.flow.losses import normal
from timewarp.kernel import Energy, Proposal, run
from timewarp.mcmc import Metropolis
from timewarp.state import Positions, State

CLIPPED = 0.002  # share of the draws, of the largest weights, that the published SNIS leaves out
CHAINS = 10  # of a flow that is not memoryless


class Counted:
    """An energy that counts the configurations that it was asked for."""

    def __init__(self, energy: Energy):
        self.energy, self.evaluations = energy, 0

    def __call__(self, positions: Positions) -> Float[Tensor, "*batch"]:
        self.evaluations += positions[..., 0, 0].numel()
        return self.energy(positions)


@dataclass(frozen=True)
class Draws:
    """Draws of a flow, or the states of its chain, in order.

    Attributes:
        positions: nm.
        energy: U/kT.
        log_weight: ln of target over density; None for a flow with memory, which gives the chain itself.
        cost: energy evaluations of one draw.
    """

    positions: Float[np.ndarray, "draws atoms 3"]
    energy: Float[np.ndarray, " draws"]
    log_weight: Float[np.ndarray, " draws"] | None
    cost: float

    def chain(self, count: int, rng: np.random.Generator) -> Sample:
        """The independence Metropolis-Hastings chain over the first `count` draws, which begins at the first."""
        if self.log_weight is None:
            return self.positions[:count], self.energy[:count]
        return self._at(chain(self.log_weight[:count], rng))

    def resampled(self, rng: np.random.Generator) -> Sample:
        """As many draws as there are, with replacement, by weight; the largest weights left out (published SNIS)."""
        weights, kept = self.weights(CLIPPED)
        return self._at(kept[rng.choice(len(kept), len(weights), p=weights / weights.sum())])

    def kish(self, clipped: float = 0.0) -> float:
        """Kish effective sample size, as a share of the draws."""
        weights, _ = self.weights(clipped)
        return float(weights.sum() ** 2 / np.square(weights).sum() / len(weights))

    def weights(self, clipped: float) -> tuple[Float[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
        """Weights up to a factor, and which draws they are of; the largest share `clipped` of them left out."""
        assert self.log_weight is not None
        order = np.argsort(self.log_weight, kind="stable")
        kept = np.sort(order[: len(order) - int(clipped * len(order))])
        log_weight = self.log_weight[kept]
        return np.exp(log_weight - log_weight.max()), kept

    def _at(self, index) -> Sample:
        return self.positions[index], self.energy[index]


def chain(log_weight: Float[np.ndarray, " draws"], rng: np.random.Generator) -> Int[np.ndarray, " draws"]:
    """Which draw each state of the independence chain is: alpha = min(1, w'/w), weights of 0 are left at once."""
    levels = np.log(rng.random(len(log_weight)))
    states = np.zeros(len(log_weight), dtype=int)
    now = 0
    for i, w in enumerate(log_weight):
        if log_weight[now] == -np.inf or w - log_weight[now] >= levels[i]:
            now = i
        states[i] = now
    return states


@torch.no_grad()
def drawn(proposal: Proposal, energy: Counted, start: Positions, count: int, rng: torch.Generator) -> Draws:
    """`count` draws of a flow bound to a peptide whose potential is `energy`, from a prepared structure."""
    before = energy.evaluations
    if not proposal.memoryless:
        return _walked(proposal, energy, start, count, rng)
    state, log_prob = proposal(start[None]).sample(count, rng)
    positions = state.positions[:, 0]
    u = energy(positions).double()
    log_weight = (-u + normal(state.velocities[:, 0]).double() - log_prob[:, 0].double()).nan_to_num(
        -torch.inf, -torch.inf, -torch.inf
    )
    found = (positions.float().numpy(), u.numpy(), log_weight.numpy())
    return Draws(*found, (energy.evaluations - before) / count)


def _walked(proposal, energy: Counted, start: Positions, count: int, rng) -> Draws:
    """Chains of a flow with memory from the prepared structure, their states side by side in time."""
    before = energy.evaluations
    kernel = Metropolis(energy, proposal, 1)
    chains = min(CHAINS, count)
    state = kernel.init(State.at(start.expand(chains, -1, -1).clone(), proposal.channels, rng))
    positions, energies = [], []
    for state, _ in run(kernel, state, -(-count // chains), rng):  # noqa: B020
        positions.append(state.state.positions)
        energies.append(state.energy)
    found = torch.cat(positions)[:count].float().numpy(), torch.cat(energies)[:count].double().numpy()
    return Draws(*found, None, (energy.evaluations - before) / count)
