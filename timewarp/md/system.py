"""A chemist's file or a sequence -> an OpenMM System, a sane geometry of it, and what was done to get there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from jaxtyping import Float
from openmm import app

from timewarp.md.build import build, parse
from timewarp.md.pdb import write_pdb
from timewarp.md.potential import FORCEFIELD, create_system
from timewarp.md.residues import LETTERS, Residue

__all__ = ["Prepared", "create_system", "prepare_sequence", "write_pdb"]


@dataclass(frozen=True)
class Prepared:
    """A peptide that is ready to be sampled.

    Attributes:
        topology: every atom and bond, one chain.
        system: its potential.
        positions: nm, in the order of the topology.
        notices: what was dropped, added or changed, one line each.
        sequence: a printable name, which `build` reads too: `AA`, `ACE-ALA-HIP-NME`.
    """

    topology: app.Topology
    system: openmm.System
    positions: Float[np.ndarray, "atoms 3"]
    notices: tuple[str, ...]
    sequence: str


def prepare_sequence(sequence: str, forcefield: tuple[str, ...] = FORCEFIELD) -> Prepared:
    """Build a structure of `sequence` (see `build`) and its System.

    Raises:
        InputError: if the sequence cannot be read or has no parameters.
    """
    topology, positions = build(sequence)
    return Prepared(topology, create_system(topology, forcefield), positions, (), title(parse(sequence)))


def title(residues: list[Residue]) -> str:
    """The printable name of a chain."""
    letters = {name: letter for letter, name in LETTERS.items()}
    if all(r.printed in letters for r in residues):
        return "".join(letters[r.printed] for r in residues)
    return "-".join(r.printed for r in residues)
