"""What a flow gives for a budget of energy evaluations: draws, the exact chain over them, and importance resampling.

Every evaluation is counted, that of an energy with its gradient as one; `Counted` measures it rather than believing
what a flow says of itself. The published figures (SNIS) count one evaluation a draw. As in `timewarp sample`, a draw of
the internal flow has several particles, configurations at the same torsions, which share the relaxation: the chain
weighs a draw by the mean of their weights (particle independent Metropolis-Hastings), and which of them it is at may be
picked anew by weight at every step, a move that leaves the chain's law as it is and asks for no energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.assemble.scores import Sample
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import InternalProposal
from timewarp.flow.losses import normal
from timewarp.kernel import Energy, Proposal, run
from timewarp.mcmc import Annealed, Metropolis
from timewarp.state import Positions, State

CLIPPED = 0.002  # share of the draws, of the largest weights, that the published SNIS leaves out
CHAINS = 10  # of a flow that is not memoryless
PARTICLES = 2  # of a draw: with more, too few torsions are drawn for the same evaluations
AT_ONCE = 256  # draws


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
        cost: energy evaluations of one draw, all its particles.
    """

    positions: Float[np.ndarray, "draws particles atoms 3"]
    energy: Float[np.ndarray, "draws particles"]
    log_weight: Float[np.ndarray, "draws particles"] | None
    cost: float

    def chain(self, count: int, rng: np.random.Generator) -> Sample:
        """The particle independence Metropolis-Hastings chain over the first `count` draws, which begins at the first.

        Each step leaves as many frames as a draw has particles, picked anew by weight.
        """
        if self.log_weight is None:
            return self.positions[:count, 0], self.energy[:count, 0]
        log_weight = self.log_weight[:count]
        states = chain(np.logaddexp.reduce(log_weight, 1), rng)
        picked = systematic(log_weight[states], log_weight.shape[1], rng)
        return self._at(np.repeat(states, log_weight.shape[1]), picked.ravel())

    def resampled(self, count: int, rng: np.random.Generator) -> Sample:
        """As many of the first `count` draws' configurations as they are, by weight, each as often as is nearest to it.

        The largest weights are left out (published SNIS).
        """
        weights, kept = self.weights(CLIPPED, count)
        picked = systematic(np.log(np.maximum(weights, 1e-300))[None], count * self.energy.shape[1], rng)[0]
        return self._at(*np.divmod(kept[picked], self.energy.shape[1]))

    def kish(self, clipped: float = 0.0) -> float:
        """Kish effective sample size of all particles, as a share of their number."""
        weights, _ = self.weights(clipped)
        return float(weights.sum() ** 2 / np.square(weights).sum() / len(weights))

    def weights(
        self, clipped: float, count: int | None = None
    ) -> tuple[Float[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
        """Weights up to a factor, and which particles they are of; the largest share `clipped` of them left out."""
        assert self.log_weight is not None
        log_weight = self.log_weight[:count].ravel()
        order = np.argsort(log_weight, kind="stable")
        kept = np.sort(order[: len(order) - int(clipped * len(order))])
        return np.exp(log_weight[kept] - log_weight[kept].max()), kept

    def _at(self, draw, particle) -> Sample:
        return self.positions[draw, particle], self.energy[draw, particle]


def systematic(
    log_weight: Float[np.ndarray, "sets size"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "sets count"]:
    """`count` of each set, in order, with one uniform number for all: each as often as its weight says, to within one.

    Systematic resampling (Kitagawa 1996); the mean number of each is exactly `count` times its share.
    """
    top = log_weight.max(1, keepdims=True)
    share = np.exp(log_weight - np.where(np.isfinite(top), top, 0.0))
    share = np.where(share.sum(1, keepdims=True) > 0, share, 1.0)
    edges = np.cumsum(share, 1) / share.sum(1, keepdims=True)
    at = (np.arange(count) + rng.random((len(log_weight), 1))) / count
    return np.minimum((at[..., None] >= edges[:, None]).sum(-1), log_weight.shape[1] - 1)


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
def drawn(
    proposal: Proposal, energy: Counted, start: Positions, count: int, rng: torch.Generator,
    particles: int = PARTICLES, enough: int | None = None,
) -> Draws:  # fmt: skip
    """`count` draws of a flow bound to a peptide whose potential is `energy`, from a prepared structure.

    Fewer, if `enough` evaluations are spent before.
    """
    before = energy.evaluations
    if not proposal.memoryless:
        return _walked(proposal, energy, start, count, rng)  # of which a draw costs one
    if isinstance(proposal, InternalProposal) and not proposal.channels:
        kernel = Annealed(energy, FactoredInternal(proposal), 0, particles=particles)
        parts = []
        for done in range(0, count, AT_ONCE):
            if enough is not None and energy.evaluations - before >= enough:
                count = done
                break
            size = min(AT_ONCE, count - done)
            parts.append(kernel.paths(kernel.proposal.draw(size, rng), particles, rng))
        positions, u, log_weight = (torch.cat(part, 1).transpose(0, 1) for part in zip(*parts, strict=True))
    else:
        state, log_prob = proposal(start[None]).sample(count, rng)
        positions, u = state.positions, energy(state.positions[:, 0]).double()[:, None]
        log_weight = -u + normal(state.velocities).double() - log_prob.double()
    log_weight = log_weight.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    found = (positions.float().numpy(), u.double().numpy(), log_weight.numpy())
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
    found = torch.cat(positions)[:count, None].float().numpy(), torch.cat(energies)[:count, None].double().numpy()
    return Draws(*found, None, (energy.evaluations - before) / count)
