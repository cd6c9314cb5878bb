"""The Markov kernel that a flow's proposals are tested by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from timewarp.assemble.peptide import Peptide
from timewarp.energy import Potential
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import InternalProposal
from timewarp.flow.turning import Turning
from timewarp.kernel import Proposal
from timewarp.mcmc import Annealed, Independence, Metropolis, Regrowth
from timewarp.mcmc.crew import Drawers

PARTLY = 0.17  # share of regrowth, and of single torsions, in the steps of a flow of which nothing is taken up
USUAL = 0.35  # acceptance of the flow where no warm-up told it
BLOCK = 4  # steps of these for which the same torsions stay
SHORTEST, LONGEST = 20, 160  # steps in which each kernel has one block


def regrowth_of(kernel: Any) -> tuple[Regrowth, Regrowth] | None:
    """Moves that draw a part of the torsions, beside a kernel that draws them all; None where it cannot be parted.

    The first draws the last torsions by the flow, the second any one by the energy.
    """
    whole = kernel.proposal if isinstance(kernel, Annealed) else None
    if not isinstance(whole, FactoredInternal) or whole.parts < 1:
        return None
    how = kernel.stages, BLOCK, kernel.angle, kernel.particles
    return Regrowth(kernel.energy, whole, *how), Regrowth(kernel.energy, Turning(whole.proposal), *how)


def flow_kernel(
    peptide: Peptide, proposal: Proposal, stages: int, width: int, particles: int = 1, crew: Drawers | None = None,
    together: int | None = None,
) -> Any:  # fmt: skip
    """The exact kernel for a proposal, one test a step.

    Args:
        stages: by which a proposal relaxes; with the law of the stiff coordinates they seldom pay.
        width: proposals drawn at once, for each chain.
        particles: draws of the stiff coordinates for each proposal, of which one is picked by weight.
        crew: other cores that draw proposals, where the energy can be asked by several; or a GPU.
        together: proposals drawn at once, of all chains; by default as many as suit a CPU.
    """
    if (stages or particles > 1) and isinstance(proposal, InternalProposal) and not proposal.channels:
        alone = not isinstance(peptide.potential, Potential)  # an OpenMM Context serves one at a time
        factored = FactoredInternal(proposal)
        crew = None if alone else crew
        return Annealed(peptide.potential, factored, stages, width, particles=particles, crew=crew, together=together)
    if proposal.memoryless:
        return Independence(peptide.potential, proposal, width)
    # frames of side-by-side chains share one clock, so that each step has to test one proposal a chain
    return Metropolis(peptide.potential, proposal, 1)


@contextmanager
def undivided() -> Iterator[int]:
    """Within it each operation of torch runs on one core; yields the cores that operations had, for proposals to use.

    Operations on so little are slower on two cores than on one.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield cores
    finally:
        torch.set_num_threads(cores)


def parted(weights: Sequence[float], acceptance: float = USUAL) -> tuple[float, ...]:
    """Those of a mixture whose first kernel is the flow's, with what it gives to those of `regrowth_of` after it.

    These cost as much as whole proposals and do less, where whole ones are taken up.
    """
    first, *others = weights
    share = PARTLY * (1 - acceptance)
    return (1 - 2 * share) * first, share * first, share * first, *others


def length(weights: Sequence[float], longest: int = LONGEST) -> int:
    """Steps of a round in which a block of regrowth is `BLOCK` steps, if it is one of these kernels.

    No longer than that local moves wait for few steps where they do the work.
    """
    if len(weights) < 5:
        return SHORTEST
    total = sum(weights)
    return max(SHORTEST, round(min(BLOCK * total / weights[1], longest * weights[0] / total)))
