"""Configurations of one molecule with all that its flow's density takes, so that judging them again is cheap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from timewarp.assemble.marginal import marginal
from timewarp.assemble.peptide import Peptide
from timewarp.flow.internal import CHUNK, Internal, InternalProposal
from timewarp.mcmc.accept import metropolis
from timewarp.state import Positions


@dataclass(frozen=True)
class Conformations:
    """Configurations in the coordinates of the internal flow.

    Attributes:
        parts: what `Internal.log_prob` takes, each [count, ...].
        target, free: see `Marginal`; the latter is what the torsions should follow, with less noise.
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
        charted = (proposal.chart.forward(block) for block in positions.split(CHUNK))
        blocks = [_at(proposal, peptide, torsions, stiff, rng) for torsions, stiff, _ in charted]
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

    def log_prob(self, flow: Internal, proposal: InternalProposal) -> Float[Tensor, " count"]:
        """ln p(tau) of the flow."""
        return flow.log_prob(proposal.tokens, **self.parts)["torsion"]

    def log_weight(self, log_prob: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
        """ln w, target over density, from ln p(tau); -inf where it is not finite."""
        return (self.target.to(log_prob) - log_prob).nan_to_num(-torch.inf, -torch.inf, -torch.inf)


@torch.no_grad()
def drawn(
    proposal: InternalProposal, peptide: Peptide, count: int, rng: torch.Generator
) -> tuple[Conformations, Float[Tensor, " count"]]:
    """Samples of the flow as it is now, and their ln w."""
    blocks = []
    for start in range(0, count, CHUNK):
        torsions, log_prob = proposal.torsions(min(CHUNK, count - start), rng)
        new = _at(proposal, peptide, torsions, None, rng)
        blocks.append((new, new.log_weight(log_prob)))
    all_, weights = zip(*blocks, strict=True)
    return all_[0].joined(*all_[1:]), torch.cat(weights)


@torch.no_grad()
def exchanged(
    pool: Conformations, pick: Int[Tensor, " some"], old: Tensor, new: Conformations, fresh: Tensor, rng
) -> Bool[Tensor, " some"]:
    """Independence Metropolis on some chains of the pool, from ln w of their present and of one draw for each."""
    zero = torch.zeros(len(pick))
    accepted = metropolis(zero, zero, torch.where(fresh.isfinite(), fresh - old, -torch.inf), rng)
    pool.put(pick[accepted], new[accepted])
    return accepted


def _at(proposal: InternalProposal, peptide: Peptide, torsions, stiff, rng) -> Conformations:
    parts = {"torsions": torsions}
    if proposal.growth:
        parts["curves"] = proposal.growth.curves(torsions)
    found = marginal(peptide, torsions, rng, stiff)
    return Conformations(parts, found.target, found.free, found.positions)
