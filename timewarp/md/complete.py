"""Residues with some of their atoms -> a topology with all of them.

PDBFixer adds the missing heavy atoms of side chains and the terminal oxygen; OpenMM's Modeller adds hydrogens.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from jaxtyping import Bool, Float
from openmm import app, unit
from pdbfixer import PDBFixer

from timewarp.md.residues import Residue, bonds, hydrogens
from timewarp.md.stereo import chirality

_STUB = "ATOM      1  N   GLY A   1       0.000   0.000   0.000  1.00  0.00           N\nEND\n"


@dataclass(frozen=True)
class Completed:
    """A peptide with every atom.

    Attributes:
        topology: with standard residue names and all bonds.
        positions: nm.
        given: true for the atoms that were there before.
        heavy_added: names of the heavy atoms that were added, residue by residue.
        hydrogens_added: their number.
    """

    topology: app.Topology
    positions: Float[np.ndarray, "atoms 3"]
    given: Bool[np.ndarray, " atoms"]
    heavy_added: tuple[str, ...]
    hydrogens_added: int


def complete(residues: list[Residue], disulfides: Sequence[tuple[int, int]] = ()) -> Completed:
    """Add what is missing from a chain of residues; deterministic.

    Args:
        residues: in chain order, each amino acid with at least N, CA, C and O, each cap with all of its heavy atoms.
        disulfides: pairs of CYX, by their place in `residues`.
    """
    topology, positions = _heavy(residues)
    before = {(a.residue.index, a.name) for a in topology.atoms()}
    platform = openmm.Platform.getPlatformByName("Reference")
    fixer = PDBFixer(pdbfile=io.StringIO(_STUB), platform=platform)
    fixer.topology, fixer.positions, fixer.missingResidues = topology, positions * unit.nanometer, {}
    fixer.findMissingAtoms()
    fixer.addMissingAtoms(seed=1)
    heavy = _array(fixer.positions)
    added = [a for a in fixer.topology.atoms() if (a.residue.index, a.name) not in before]
    _unmirror(fixer.topology, heavy, {a.index for a in added})
    labels = [f"{residues[a.residue.index].label}:{a.name}" for a in added]

    topology, positions, known = _with_hydrogens(residues, fixer.topology, heavy, disulfides)
    modeller = app.Modeller(topology, positions * unit.nanometer)
    wanted = [list(hydrogens(r.name, r.variant, i == 0)) for i, r in enumerate(residues)]
    kept = random.getstate()  # Modeller draws directions from the global generator
    random.seed(1)
    try:
        modeller.addHydrogens(variants=wanted, platform=platform)
    finally:
        random.setstate(kept)
    atoms = list(modeller.topology.atoms())
    given = np.array([(a.residue.index, a.name) in before | known for a in atoms])
    count = sum(a.element is app.element.hydrogen for a in atoms) - len(known)
    return Completed(modeller.topology, _array(modeller.positions), given, tuple(labels), count)


def _unmirror(topology, positions, added):
    """Reflect added side-chain atoms that have the wrong hand: PDBFixer's fit takes the backbone oxygen along."""
    for residue, centre, sign in chirality(topology, positions):
        at = {atom.name: atom.index for atom in residue.atoms()}
        beyond = [i for name, i in at.items() if i in added and name not in ("N", "CA", "C", "O", "OXT", "CB")]
        if sign > 0 or centre == "CA" or not beyond:
            continue
        known = [positions[i] for name, i in at.items() if name[1:2] == "G" and i not in added]
        origin, axis = positions[at["CA"]], positions[at["CB"]] - positions[at["CA"]]
        normal = np.cross(axis, (known[0] if known else positions[at["N"]]) - origin)
        normal /= np.linalg.norm(normal)
        positions[beyond] -= 2 * ((positions[beyond] - origin) @ normal)[:, None] * normal


def _array(positions) -> np.ndarray:
    return np.array(positions.value_in_unit(unit.nanometer), dtype=np.float64).reshape(-1, 3)


def _heavy(residues):
    """The topology of the heavy atoms that are known, without bonds: PDBFixer makes its own."""
    topology, positions = app.Topology(), []
    chain = topology.addChain("A")
    for number, residue in enumerate(residues, 1):
        place = topology.addResidue(residue.name, chain, str(number))
        for name, position in residue.heavy.items():
            topology.addAtom(name, app.Element.getBySymbol(name[0]), place)
            positions.append(position)
    return topology, np.array(positions)


def _with_hydrogens(residues, heavy_topology, heavy, disulfides):
    """All heavy atoms in the order of the residue tables, the known hydrogens behind their own, and all bonds."""
    topology, positions, known, atoms = app.Topology(), [], set(), {}
    chain = topology.addChain("A")
    for i, (old, residue) in enumerate(zip(heavy_topology.residues(), residues, strict=True)):
        place = topology.addResidue(residue.name, chain, str(i + 1))
        names: dict[str, list[str]] = {}
        for name, parent in hydrogens(residue.name, residue.variant, i == 0):
            names.setdefault(parent, []).append(name)
        new = {atom.name for atom in old.atoms()} - residue.heavy.keys()
        # a hydrogen beside an added atom was placed without it: made anew, or the stereocentre may be mirrored
        beside = {a for pair in bonds(residue.name) if new & set(pair) for a in pair}
        for atom in old.atoms():
            atoms[i, atom.name] = parent = topology.addAtom(atom.name, atom.element, place)
            positions.append(heavy[atom.index])
            here = [position for owner, position in residue.hydrogens if owner == atom.name]
            here = [] if atom.name in beside else here
            for name, position in zip(names.get(atom.name, []), here, strict=False):
                hydrogen = topology.addAtom(name, app.element.hydrogen, place)
                topology.addBond(parent, hydrogen)
                known.add((i, name))
                positions.append(position)
        for a, b in bonds(residue.name):
            if (i, a) in atoms and (i, b) in atoms:
                topology.addBond(atoms[i, a], atoms[i, b])
        if i > 0:
            topology.addBond(atoms[i - 1, "C"], atoms[i, "N"])
    for i, j in disulfides:
        topology.addBond(atoms[i, "SG"], atoms[j, "SG"])
    return topology, np.array(positions), known
