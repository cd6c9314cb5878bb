"""A chemist's file or a sequence -> an OpenMM System, a sane geometry of it, and what was done to get there."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import openmm
from jaxtyping import Float
from openmm import app

from timewarp.md.assemble import assemble
from timewarp.md.complete import Completed, complete
from timewarp.md.faults import InputError
from timewarp.md.pdb import write_pdb
from timewarp.md.potential import FORCEFIELD, create_system
from timewarp.md.read import read
from timewarp.md.relax import relax
from timewarp.md.residues import LETTERS, Residue
from timewarp.md.sequence import build, parse
from timewarp.md.stereo import chirality, trans

__all__ = ["InputError", "Prepared", "create_system", "prepare", "prepare_sequence", "write_pdb"]


STIFFNESS = 1000.0  # kJ/mol/nm^2
ITERATIONS = 500
WORST = 100.0  # kJ/mol an atom; prepared peptides lie near -20
FARTHEST = 0.1  # nm


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


def prepare(path: str | os.PathLike, forcefield: tuple[str, ...] = FORCEFIELD) -> Prepared:
    """Read a PDB or mmCIF file of a peptide, add what is missing, and relax it lightly.

    Heavy atoms of the file are held near where they are; the notices say how far they moved.

    Raises:
        InputError: one line that starts with the path: what was expected, what was found, what to do.
    """
    try:
        residues, bridges, notices = assemble(read(path))
        whole = complete(residues, bridges)
        system = create_system(whole.topology, forcefield)
        positions, steps = _relaxed(system, whole)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if whole.heavy_added:
        notices.append(f"added heavy atoms: {', '.join(whole.heavy_added)}")
    if whole.hydrogens_added:
        notices.append(f"added {whole.hydrogens_added} hydrogen{'s' if whole.hydrogens_added > 1 else ''}")
    label = {i: residue.label for i, residue in enumerate(residues)}
    for residue, centre, sign in chirality(whole.topology, positions):
        if sign > 0 and centre == "CA" and residues[residue.index].dextro:
            raise InputError(
                f"{path}: expected the hand of a D amino acid at {label[residue.index]}, found that of an L one; name "
                f"it {residue.name} or correct its geometry"
            )
        if sign < 0:
            notices.append(f"kept {label[residue.index]}, whose {centre} has the hand opposite to natural amino acids")
    notices += [
        f"kept the cis peptide bond {bond}" for bond, is_trans in trans(whole.topology, positions) if not is_trans
    ]
    return Prepared(whole.topology, system, positions, (*notices, steps), title(residues))


def _relaxed(system: openmm.System, whole: Completed) -> tuple[np.ndarray, str]:
    """Minimised positions, with the heavy atoms of the file held, and a sentence that says so."""
    heavy = np.array([atom.element is not app.element.hydrogen for atom in whole.topology.atoms()])
    held = whole.given & heavy
    positions, before, after = relax(system, whole.positions, held, STIFFNESS, ITERATIONS)
    moved = np.linalg.norm(positions - whole.positions, axis=1)[held]
    if not np.isfinite(positions).all() or not after < WORST * len(positions):
        raise InputError(
            f"expected a structure that can be relaxed, found {after:.3g} kJ/mol after minimisation (clashes or wrong "
            "bond lengths); correct its geometry"
        )
    if moved.max() > FARTHEST:
        raise InputError(
            f"expected a structure near a minimum, found heavy atoms that move by {moved.max():.3f} nm in a light "
            "minimisation (clashes or wrong bond lengths); correct its geometry"
        )
    return positions, (
        f"minimised from {before:.4g} to {after:.4g} kJ/mol with the heavy atoms of the file held "
        f"({STIFFNESS:g} kJ/mol/nm^2): they moved {np.sqrt((moved**2).mean()):.4f} nm rms, {moved.max():.4f} nm at most"
    )


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
