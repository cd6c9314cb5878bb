"""The Markov kernel that a flow's proposals are tested by."""

from __future__ import annotations

from typing import Any

from timewarp.assemble.peptide import Peptide
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import InternalProposal
from timewarp.kernel import Proposal
from timewarp.mcmc import Annealed, Independence, Metropolis


def flow_kernel(peptide: Peptide, proposal: Proposal, stages: int, width: int, particles: int = 1) -> Any:
    """The exact kernel for a proposal, one test a step.

    Args:
        stages: by which a proposal relaxes; with the law of the stiff coordinates they seldom pay.
        width: proposals drawn at once, for each chain.
        particles: draws of the stiff coordinates for each proposal, of which one is picked by weight.
    """
    if (stages or particles > 1) and isinstance(proposal, InternalProposal) and not proposal.channels:
        return Annealed(peptide.potential, FactoredInternal(proposal), stages, width, particles=particles)
    if proposal.memoryless:
        return Independence(peptide.potential, proposal, width)
    # frames of side-by-side chains share one clock, so that each step has to test one proposal a chain
    return Metropolis(peptide.potential, proposal, 1)
