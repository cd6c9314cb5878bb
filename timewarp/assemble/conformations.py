"""Configurations of one molecule with all that its flow's density takes, so that judging them again is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from timewarp.assemble.peptide import Peptide
from timewarp.flow.internal import CHUNK, Internal, InternalProposal, laid
from timewarp.flow.stiff import gaussian
from timewarp.mcmc.accept import metropolis
from timewarp.state import Positions

DRAWS = 8  # of the stiff coordinates, for `free`
LOWEST = -1e6  # what a log weight that is not finite counts as


@dataclass(frozen=True)
class Conformations:
    """Configurations in the coordinates of the internal flow.

    Attributes:
        parts: what `Internal.log_prob` takes, each [count, ...].
        target: -U/kT - ln |d(tau, z)/dx|, the log density in those coordinates up to a constant; -inf in a clash.
        free: ln of the integral of exp(target) over the stiff coordinates, up to a constant: estimated from a few
            draws of them at the same torsions, it is what the torsions should follow, with less noise than `target`.
        positions: nm, in the chart's frame.
    """

    parts: dict[str, Tensor]
    target: Float[Tensor, " count"]
    free: Float[Tensor, " count"]
    positions: Positions

    @classmethod
    @torch.no_grad()
    def of(
        cls, proposal: InternalProposal, peptide: Peptide, positions: Positions, rng: torch.Generator
    ) -> Conformations:
        """What there is to know of these positions."""
        blocks = [_of(proposal, peptide, block, rng) for block in positions.split(CHUNK)]
        return blocks[0].joined(*blocks[1:])

    def __len__(self) -> int:
        return len(self.target)

    def joined(self, *others: Conformations) -> Conformations:
        """These, then the others."""
        all_ = (self, *others)
        parts = {name: torch.cat([c.parts[name] for c in all_]) for name in self.parts}
        rest = (torch.cat([getattr(c, name) for c in all_]) for name in ("target", "free", "positions"))
        return Conformations(parts, *rest)

    def __getitem__(self, pick: Shaped[Tensor, " some"] | slice) -> Conformations:
        parts = {name: part[pick] for name, part in self.parts.items()}
        return Conformations(parts, self.target[pick], self.free[pick], self.positions[pick])

    def put(self, pick: Int[Tensor, " some"], new: Conformations) -> None:
        """Write `new` in the places `pick`."""
        for name, part in self.parts.items():
            part[pick] = new.parts[name]
        for name in ("target", "free", "positions"):
            getattr(self, name)[pick] = getattr(new, name)

    def log_prob(self, flow: Internal, proposal: InternalProposal) -> tuple[Tensor, Tensor]:
        """(ln p(tau), ln p(z | tau)) of the flow; [count] each."""
        return flow.log_prob(proposal.tokens, **self.parts)  # type: ignore[arg-type]

    def log_weight(self, log_prob: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
        """ln w, target over density; -inf where it is not finite."""
        return (self.target.to(log_prob) - log_prob).nan_to_num(-torch.inf, -torch.inf, -torch.inf)


@torch.no_grad()
def drawn(
    proposal: InternalProposal, peptide: Peptide, count: int, rng: torch.Generator
) -> tuple[Conformations, Float[Tensor, " count"]]:
    """Samples of the flow as it is now, and their ln w."""
    state, log_prob = proposal.draw(count, rng)
    new = Conformations.of(proposal, peptide, state.positions, rng)
    # the density that was drawn with, in the chart's coordinates as the target is
    log_det = proposal.chart.forward(state.positions)[2]
    return new, new.log_weight(log_prob - log_det)


@torch.no_grad()
def exchanged(
    pool: Conformations, pick: Int[Tensor, " some"], old: Tensor, new: Conformations, fresh: Tensor, rng
) -> Bool[Tensor, " some"]:
    """Independence Metropolis on some chains of the pool, from ln w of their present and of one draw for each."""
    zero = torch.zeros(len(pick))
    accepted = metropolis(zero, zero, torch.where(fresh.isfinite(), fresh - old, -torch.inf), rng)
    pool.put(pick[accepted], new[accepted])
    return accepted


def _of(proposal: InternalProposal, peptide: Peptide, positions: Positions, rng: torch.Generator) -> Conformations:
    chart, energy = proposal.chart, peptide.potential
    torsions, stiff, log_det = chart.forward(positions)
    mean, shift, scale = proposal.relaxed(proposal.atoms, torsions)
    turns = chart.join(torsions, mean)[..., 2]
    parts = {"torsions": torsions, "turns": turns, "mean": laid(chart, mean), "noise": laid(chart, stiff - mean)}
    if proposal.growth:
        parts["curves"] = proposal.growth.curves(torsions)
    target = -energy(positions) - log_det
    each = []
    for _ in range(DRAWS):
        white = torch.randn(shift.shape, generator=rng, dtype=shift.dtype)
        noise = torch.where(chart.stiff, shift + scale.exp() * white, 0.0)
        placed, det = chart.inverse(torsions, mean + noise[:, chart.stiff])
        each.append(-energy(placed) - det - gaussian(noise, shift, scale, proposal.tokens.stiff))
    free = torch.stack(each).nan_to_num(LOWEST, LOWEST, LOWEST).logsumexp(0) - log(DRAWS)
    return Conformations(parts, target.nan_to_num(-torch.inf, -torch.inf, -torch.inf), free, positions)
