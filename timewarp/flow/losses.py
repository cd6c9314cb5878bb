"""What is minimised: the negative log likelihood and the spread of the log weights of torsions; acceptance and entropy.

The likelihood knows of a frame only that it was met. Where the density that the energy asks for is known up to a
constant of the molecule, F(tau) = ln of the integral of mu over the stiff coordinates, the gap F - ln p(tau) says by
how much p is wrong at a frame, thermal or not; it is the same everywhere where p is right (log-variance divergence;
Richter et al. 2020). Its distance from its median of a molecule counts, linearly beyond `BOUND`.

The other two are on the flow's own samples, as Klein et al. 2023 (Timewarp) add them to the likelihood: they need the
energy, differentiable, and no data but the positions x that the flow starts from. With X = (x, v), X' = (x', v'):

| symbol | variable |
|---|---|
| ln mu(X) = -U(x)/kT + ln N(v; 0, I), up to a constant | log_target |
| ln r = ln mu(X') - ln mu(X) + ln p(X \\| x') - ln p(X' \\| x) | log_ratio |
| acceptance term = -E ln r, X' drawn from p | -log_ratio |
| entropy term = E ln p(X' \\| x), X' drawn from p | log_prob |

Of a flow with memory, gradients reach the flow through the samples (pathwise, as published). For a memoryless flow
ln p(X) and ln mu(X) do not depend on X': they are left out (the first is the likelihood term already), and -E ln r
becomes the reverse Kullback-Leibler divergence E [ln p - ln mu] up to a constant. Its gradient is taken as
E [(cost - mean cost of the others) grad ln p(X')] at samples held fixed: pathwise gradients of such a flow go with
1 / p between its modes and with the forces of clashes, and undo within 40 steps what was learned from data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timewarp.kernel import Energy, Proposal
from timewarp.state import State

BOUND = 6.0  # nats
FARTHEST = 1e12  # kT, what an energy that is not finite counts as


class Own(NamedTuple):
    """A molecule on which the flow's own samples are judged: the flow bound to it, its energy, and starts."""

    proposal: Proposal
    energy: Energy
    starts: State


class Terms(NamedTuple):
    """Of a minibatch: the parts of ln p of its thermal frames; F - ln p(tau), [molecules, frames], where F is known."""

    parts: dict[str, Tensor]
    gap: Float[Tensor, "molecules frames"] | None = None


@runtime_checkable
class Batch(Protocol):
    """A minibatch of data, and molecules for own samples (often none)."""

    own: Sequence[Own]

    def terms(self, model: nn.Module, rng: torch.Generator) -> Terms: ...


@dataclass(frozen=True)
class Objective:
    """The loss of a minibatch, in nats.

    Attributes:
        likelihood: weight of the negative log likelihood.
        acceptance: weight of minus the mean log Metropolis-Hastings ratio.
        entropy: weight of minus the entropy of a proposal.
        spread: weight of that of the log weights, where the density of the torsions is known.
        rise: kT above the start from which an energy counts by its logarithm, so that no clash rules the step.
    """

    likelihood: float = 1.0
    acceptance: float = 0.0
    entropy: float = 0.0
    spread: float = 0.0
    rise: float = 30.0

    def __call__(self, model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """(loss, its parts); a weight of zero leaves its term uncomputed."""
        terms: list[Tensor] = []
        told: dict[str, float] = {}
        if self.likelihood or self.spread:
            parts, gap = batch.terms(model, rng)
            told = {name: -float(part.detach().mean()) for name, part in parts.items()}
            terms.append(-self.likelihood * torch.stack([part.mean() for part in parts.values()]).sum())
            if self.spread and gap is not None:
                off = spread(gap)
                terms.append(self.spread * off)
                told["spread"] = float(off.detach())
        if self.acceptance or self.entropy:
            for own in batch.own:
                ratio, log_prob = (_fixed if own.proposal.memoryless else log_ratio)(*own, rng, self.rise)
                cost = self.entropy * log_prob - self.acceptance * ratio
                loss = _score(cost, log_prob) if own.proposal.memoryless else cost.mean()
                terms.append(loss / len(batch.own))
                for name, value in (("log_ratio", ratio), ("entropy", -log_prob)):
                    told[name] = told.get(name, 0.0) + float(value.detach().mean()) / len(batch.own)
        return torch.stack(terms).sum(), told


def spread(gap: Float[Tensor, "molecules frames"]) -> Float[Tensor, ""]:
    """Half the square of the distance from the molecule's median, linear beyond `BOUND` nats; the mean of all."""
    middle = gap.detach().median(-1, keepdim=True).values
    return nn.functional.huber_loss(gap, middle.expand_as(gap), delta=BOUND)


def log_ratio(
    proposal: Proposal, energy: Energy, starts: State, rng: torch.Generator, rise: float = float("inf")
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """(ln r, ln p) of one own sample from each start, differentiable through the samples; see the table above.

    Args:
        proposal: the flow bound to a molecule.
        energy: U/kT of it.
        starts: positions and velocities, [batch, atoms, ...].
        rise: see `Objective`; infinite for the true ratio.
    """
    drawn, log_prob = proposal(starts.positions).sample(1, rng)
    return _ratio(proposal, energy, starts, drawn[0], log_prob[0], rise), log_prob[0]


def _fixed(proposal, energy, starts, rng, rise):
    """As `log_ratio`, with the samples held fixed."""
    transition = proposal(starts.positions)
    with torch.no_grad():
        drawn, _ = transition.sample(1, rng)
    log_prob = transition.log_prob(drawn[0])
    return _ratio(proposal, energy, starts, drawn[0], log_prob, rise), log_prob


def _ratio(proposal, energy, starts, drawn, log_prob, rise):
    with torch.no_grad():
        before = energy(starts.positions).to(log_prob)
    if proposal.memoryless:  # which start a sample has means nothing
        before = before.mean()
    ratio = normal(drawn.velocities) - tempered(energy(drawn.positions) - before, rise) - log_prob
    if proposal.memoryless:
        return ratio
    return ratio + proposal(drawn.positions).log_prob(starts) - normal(starts.velocities)


def _score(cost: Float[Tensor, " batch"], log_prob: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """The mean cost, whose gradient is that of samples that follow p: E [cost grad ln p], less what has mean zero."""
    cost = cost.detach()
    others = (cost.sum() - cost) / max(1, len(cost) - 1)
    weighed = (cost - others) * log_prob
    return cost.mean() + (weighed - weighed.detach()).mean()


def tempered(excess: Float[Tensor, " batch"], rise: float) -> Float[Tensor, " batch"]:
    """An energy above `rise` counts as rise + ln(1 + excess - rise): the same slope there, bounded forces beyond."""
    finite = excess.nan_to_num(FARTHEST, FARTHEST).clamp_max(FARTHEST)
    above = (finite - rise).clamp_min(0.0)
    return torch.where(above > 0, rise + torch.log1p(above), finite) if rise < float("inf") else finite


def normal(velocities: Float[Tensor, "batch atoms channels"]) -> Float[Tensor, " batch"]:
    """ln N(v; 0, I) of all velocities of a configuration; 0 without any."""
    return -0.5 * (velocities.square() + log(2 * pi)).sum((-1, -2))
