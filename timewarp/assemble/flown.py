"""Training frames from a flow itself: its draws, resampled by weight, walk on until they are thermal.

A walk from a hot start takes minutes to forget it in a tetrapeptide. Where a flow that was trained on other peptides
is right in one draw of a hundred, its draws show all states, their weights say how often each is visited, and short
chains that mix its proposals with torsion moves do the rest. The draws themselves, with the density that the energy
asks for at their torsions, tell the next flow where this one goes wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from timewarp.assemble.marginal import LOWEST, marginal
from timewarp.assemble.peptide import Peptide
from timewarp.flow.internal import InternalProposal
from timewarp.kernel import run
from timewarp.mcmc import Independence, Mixture, Repeat
from timewarp.mcmc.torsions import TorsionState
from timewarp.state import State

OWN = 1024  # draws of the flow that a shard keeps
BLOCK = 256
WEIGHTS = (0.15, 0.85)  # of the flow's proposals, which cost more, and of torsion moves
MOVES = 12  # torsion moves in a step: the flow does not draw what holds a shape together across a chain, walks find it
QUEUE = 8  # proposals at once, for each walker


def flown(
    peptide: Peptide, proposal: InternalProposal, walkers: int, warm_up: int, frames: int, pause: int,
    rng: torch.Generator,
) -> tuple[list[TorsionState], dict[str, Tensor], dict[str, Any]]:  # fmt: skip
    """`frames` states of the walkers, what a shard keeps of the draws, and facts.

    Args:
        peptide: of the molecule.
        proposal: the flow bound to it, without velocity channels.
        walkers: chains side by side.
        warm_up: steps of a chain before its first frame.
        frames: kept of each chain.
        pause: steps between them.
        rng: of all of it.
    """
    blocks = []
    for _ in range(OWN // BLOCK):
        torsions, log_prob = proposal.torsions(BLOCK, rng)
        found = marginal(peptide, torsions, rng)
        blocks.append((torsions, found.free, found.positions, found.target - log_prob.double()))
    torsions, free, positions, weight = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    weight = (weight.clamp_min(LOWEST) - weight.max()).exp()
    share = float(weight.sum() ** 2 / weight.square().sum() / len(weight))
    pick = torch.multinomial(weight, walkers, replacement=True, generator=rng)
    walk = peptide.walk()
    kernel = Mixture((Independence(peptide.potential, proposal, QUEUE), Repeat(walk, MOVES)), WEIGHTS)
    state, kept = kernel.init(State.at(positions[pick], 0, rng)), []
    for number, (state, _) in enumerate(run(kernel, state, warm_up + frames * pause, rng), 1):  # noqa: B020
        if number > warm_up and (number - warm_up) % pause == 0:
            kept.append(walk.init(state.state))
    acceptance = (state.accepted / state.tested.clamp_min(1)).tolist()
    facts = {"acceptance": acceptance[0], "torsion_acceptance": acceptance[1], "kish": share}
    return kept, {"drawn.torsions": torsions, "drawn.free": free}, facts
