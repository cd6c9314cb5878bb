"""When a run compiles its energy: after as many steps as no clock decides, so that a resumed run has the same bytes.

Compiled, a proposal takes half to a quarter of the time; compiling takes half a minute where it was not done before on
a machine, and no time where it was. Short runs are over before that pays.
"""

from __future__ import annotations

from timewarp.assemble.peptide import Peptide
from timewarp.energy import Potential
from timewarp.flow.internal import InternalProposal
from timewarp.kernel import Proposal

AFTER = 640  # steps
WORTH_STEPS, WORTH_SECONDS = 3000, 45.0  # shorter runs are left alone


def worth_fusing(steps: int | None, seconds: float | None) -> bool:
    """Whether a run with these limits compiles at all."""
    return (steps is None or steps >= WORTH_STEPS) and (seconds is None or seconds >= WORTH_SECONDS)


def fuse(peptide: Peptide, proposal: Proposal) -> None:
    """Compile the energy and the growth curves from here on, where they are ours."""
    if isinstance(peptide.potential, Potential) and peptide.potential.device.type == "cpu":
        peptide.potential.compiled = True
        if isinstance(proposal, InternalProposal) and proposal.growth:
            proposal.growth.fuse()
