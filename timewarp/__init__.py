"""timewarp: enhanced sampling of peptides by a transferable normalizing flow.

A computational chemist has a peptide PDB and wants samples of its Boltzmann distribution.
Molecular dynamics crosses barriers once in billions of femtosecond steps.
A normalizing flow, trained once on many small peptides, proposes the crossing in one move.
Metropolis-Hastings with the OpenMM energy accepts or rejects it, so the chain is exact whatever the flow got wrong.
Without the correction the same proposals explore states fast, and say that they are not exact.
It works on a peptide that was never seen, on a laptop CPU or one GPU, from one command.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from timewarp.late import late

# read when torch is loaded: threads that spin while they wait for one that has no core stand still on a shared machine
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from timewarp.forcefield import ForceField, GeneralizedBorn
    from timewarp.kernel import Energy, Kernel, Move, Proposal, Transition, run
    from timewarp.state import Molecule, Positions, State

__all__ = [
    "Energy",
    "ForceField",
    "GeneralizedBorn",
    "Kernel",
    "Molecule",
    "Move",
    "Positions",
    "Proposal",
    "State",
    "Transition",
    "run",
]
__getattr__ = late(
    __name__,
    {
        "forcefield": ("ForceField", "GeneralizedBorn"),
        "kernel": ("Energy", "Kernel", "Move", "Proposal", "Transition", "run"),
        "state": ("Molecule", "Positions", "State"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
