"""Regrowth: a part of the torsions stays, and the flow draws the others anew.

A flow that draws one torsion after another gives q(tau_k+1 ... tau_n | tau_1 ... tau_k) at no further cost. What it got
wrong of a state is then not paid for at once: a whole proposal from a state of weight W is taken up about once in W,
but a state whose weight has come about in several places is left in several steps, of which each pays for one. It is
the regrowth of configurational-bias Monte Carlo (Siepmann and Frenkel 1992), with a flow in place of trial angles.

| symbol | variable |
|---|---|
| k, drawn anew for each block of proposals, whatever the state | kept |
| W of `Annealed`, with q(tau_k+1 ... tau_n | tau_1 ... tau_k) in place of q(tau) | log_weight |

Any other part of the torsions may be drawn, by any law given the others (`Turning`). The others are the same in a
present and all that is proposed to it, so that within a block the chain is that of `Annealed` for the target given
them, which leaves the whole target invariant. Proposals are of no use once another kernel has moved the torsions that
stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.kernel import Regrowing
from timewarp.mcmc.annealed import Annealed
from timewarp.mcmc.chain import Chain
from timewarp.mcmc.independence import Queue
from timewarp.state import Positions


@dataclass(frozen=True)
class Regrowth(Annealed):
    """Exact kernel for a `Regrowing` proposal; each step tests one proposal in each chain.

    The attributes are those of `Annealed`; `width` is also the number of steps for which the same torsions stay.
    """

    proposal: Regrowing

    def __post_init__(self):
        super().__post_init__()
        if self.proposal.parts < 1:
            raise ValueError("expected torsions of which some may stay, got a proposal of 0 parts; draw all at once")

    def moved(self, queue: Queue, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Queue, int]:
        """The chains at positions that another kernel led to; a new block begins there."""
        queue, spent = super().moved(queue, positions, energy)
        return replace(queue, next=self.width), spent

    def _filled(self, queue: Queue, rng: torch.Generator) -> tuple[Queue, int]:
        """The queue with proposals; they depend on the present, so that none are drawn ahead."""
        kept = 1 + int(torch.randint(self.proposal.parts, (), generator=rng, device=rng.device))
        torsions = self.proposal.torsions(queue.present.state.positions)
        found = []
        for rows in self._rows(queue):
            given = self.proposal.regrown(torsions, kept, rows.to(torsions.device) % len(torsions), rng)
            found.append(self._weighed(given, rng))
        return self._waiting(queue, found, kept), 0

    def _of_present(self, present: Chain, kept: int, rng: torch.Generator) -> Float[Tensor, " chains"]:
        given, noise = self.proposal.given(present.state.positions, kept)
        return -present.energy - self.backward(given, noise, rng)
