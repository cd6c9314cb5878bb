"""How good a flow is on one peptide: the acceptance of independence Metropolis against thermal frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.losses import log_ratio, normal
from timewarp.kernel import Energy, Proposal
from timewarp.state import Positions, State


@torch.no_grad()
def measured(proposal: Proposal, energy: Energy, frames: Positions, rng: torch.Generator) -> float:
    """Mean acceptance of one proposal from each thermal frame; a memoryless one is measured by all pairs at once."""
    if proposal.memoryless:
        return acceptance(*log_weights(proposal, energy, frames, len(frames), rng))
    ratio, _ = log_ratio(proposal, energy, State.at(frames, proposal.channels, rng), rng)
    return float(ratio.double().nan_to_num(-torch.inf, torch.inf, -torch.inf).clamp_max(0.0).exp().mean())


@torch.no_grad()
def log_weights(
    proposal: Proposal, energy: Energy, frames: Positions, count: int, rng: torch.Generator
) -> tuple[Float[Tensor, " count"], Float[Tensor, " frames"]]:
    """ln w = -U/kT + ln N(v) - ln p of `count` draws of the proposal, and of thermal frames with fresh velocities."""
    transition = proposal(frames[:1])
    state, log_prob = transition.sample(count, rng)
    drawn = -energy(state.positions[:, 0]) + normal(state.velocities[:, 0]) - log_prob[:, 0]
    start = State.at(frames, proposal.channels, rng)
    thermal = -energy(frames) + normal(start.velocities) - transition.log_prob(start)
    return drawn.double().nan_to_num(-torch.inf, -torch.inf, -torch.inf), thermal.double()


def acceptance(drawn: Tensor, thermal: Tensor) -> float:
    """Mean of min(1, w'/w) over thermal states and draws."""
    return float((drawn[None, :] - thermal[:, None]).clamp_max(0.0).exp().mean())


def kish(drawn: Tensor) -> float:
    """Kish effective sample size of the draws' weights, as a share of their number."""
    w = (drawn - drawn.max()).exp()
    return float(w.sum() ** 2 / (w * w).sum() / len(w))
