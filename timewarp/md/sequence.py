"""A sequence -> a sane structure of it: extended backbone, L (or D) amino acids, trans peptide bonds, minimised."""

from __future__ import annotations

import re

import numpy as np
import openmm
from jaxtyping import Float
from openmm import app, unit

from timewarp.md.complete import complete
from timewarp.md.faults import InputError
from timewarp.md.potential import create_system
from timewarp.md.relax import relax
from timewarp.md.residues import AMINO, DEFAULT, DEXTRO, HEAD, LETTERS, SUPPORTED, TAIL, Residue, standard
from timewarp.md.stereo import chirality, trans

LONGEST = 10  # amino acids
STRETCH = 0.015  # nm, of a bond in a sound structure
_BACKBONES = ((-75.0, 150.0), (-120.0, 130.0), (-140.0, 160.0), (-65.0, 140.0), (-65.0, -40.0))  # phi, psi


def build(sequence: str) -> tuple[app.Topology, Float[np.ndarray, "atoms 3"]]:
    """The topology and a minimised structure of a sequence, in nm; the same each time.

    Args:
        sequence: one letter a residue (`AA`, a zwitterion at neutral pH with HIE), or names joined by hyphens
            (`ACE-ALA-HIP-NME`), where caps, protonation states and D amino acids have names of their own. CYX are
            joined in the order in which they stand: the first with the second.

    Raises:
        InputError: if the sequence cannot be read, or the force field does not know a residue where it stands.
    """
    residues = parse(sequence)
    bridges = disulfides(residues)
    found: list[tuple[float, app.Topology, np.ndarray]] = []
    for phi, psi in reversed(_BACKBONES) if bridges else _BACKBONES:
        for residue, heavy in zip(residues, _backbone(residues, phi, psi), strict=True):
            residue.heavy = heavy
        whole = complete(residues, bridges)
        system = create_system(whole.topology)
        positions = _drawn_together(system, whole.topology, whole.positions) if bridges else whole.positions
        positions = _inverted(whole.topology, positions, residues)
        positions, _, energy = relax(system, positions)
        if _sound(whole.topology, system, positions, residues):
            found.append((energy, whole.topology, positions - positions.mean(0)))
        if len(found) > bool(bridges):  # a loop has better and worse ways to close; a chain has none
            break
    if not found:
        raise InputError(f"expected a sequence with a sound structure, found none for {sequence}; give a file instead")
    _, topology, positions = min(found, key=lambda one: one[0])
    return topology, positions


def _inverted(topology, positions, residues):
    """D amino acids: the side chain and HA on the other side of the plane through N, CA and C."""
    positions = positions.copy()
    for made, residue in zip(topology.residues(), residues, strict=True):
        if residue.dextro and residue.name != "GLY":
            at = {atom.name: atom.index for atom in made.atoms()}
            side = [i for name, i in at.items() if name not in ("N", "CA", "C", "O", "OXT", "H", "H1", "H2", "H3")]
            centre = positions[at["CA"]]
            normal = np.cross(positions[at["N"]] - centre, positions[at["C"]] - centre)
            normal /= np.linalg.norm(normal)
            positions[side] -= 2 * ((positions[side] - centre) @ normal)[:, None] * normal
    return positions


def _sound(topology, system, positions, residues) -> bool:
    """Finite, the hands asked for, trans peptide bonds, no stretched bond (as in a ring that is threaded)."""
    dextro = {i for i, residue in enumerate(residues) if residue.dextro}
    hands = [sign < 0 if r.index in dextro else sign > 0 for r, _, sign in chirality(topology, positions)]
    if not np.isfinite(positions).all() or not all(hands):
        return False
    stretch = [abs(np.linalg.norm(positions[i] - positions[j]) - length) for i, j, length, _ in harmonic_bonds(system)]
    return bool(max(stretch) < STRETCH) and all(value for _, value in trans(topology, positions))


def harmonic_bonds(system: openmm.System) -> list[tuple[int, int, float, float]]:
    """The bonds of a System: two atoms, length in nm, stiffness in kJ/mol/nm^2."""
    force = next(force for force in system.getForces() if isinstance(force, openmm.HarmonicBondForce))
    found = [force.getBondParameters(n) for n in range(force.getNumBonds())]
    return [(i, j, r.value_in_unit(unit.nanometer), k._value) for i, j, r, k in found]


def _drawn_together(system, topology, positions):
    """Disulfides closed gently: with bonds that are soft first, so that nothing else is torn."""
    sulfurs = {atom.index for atom in topology.atoms() if atom.name == "SG"}
    for stiffness in (30.0, 300.0, 3000.0):
        soft = openmm.XmlSerializer.clone(system)
        force = next(force for force in soft.getForces() if isinstance(force, openmm.HarmonicBondForce))
        for n, (i, j, length, _) in enumerate(harmonic_bonds(system)):
            if {i, j} <= sulfurs:
                force.setBondParameters(n, i, j, length, stiffness)
        positions, _, _ = relax(soft, positions, iterations=300)
    return positions


def parse(sequence: str) -> list[Residue]:
    """The residues that a sequence names, without atoms.

    Raises:
        InputError: naming the residue that is not known, or not known where it stands.
    """
    text = sequence.strip().upper()
    if not re.fullmatch(r"[A-Z0-9]+(-[A-Z0-9]+)*", text):
        raise InputError(f"expected a sequence such as AA or ACE-ALA-NME, found {sequence[:60]!r}")
    names = [LETTERS.get(letter, letter) for letter in text] if "-" not in text else text.split("-")
    residues = []
    for number, name in enumerate(names, 1):
        found = standard(LETTERS.get(name, name))
        if found is None:
            raise InputError(f"expected residues among {SUPPORTED}, found {name} at place {number} of {text[:60]}")
        variant = found[1] or DEFAULT.get(found[0])
        residues.append(Residue(found[0], variant, label=f"{found[0]}{number}", dextro=name in DEXTRO))
        if name == "DPR":
            raise InputError(f"expected no DPR in a sequence (its ring cannot be built), found it at place {number}")
    check_ends(residues)
    return residues


def check_ends(residues: list[Residue]) -> None:
    """Whether the caps stand at the ends, and the force field knows the residues there.

    Raises:
        InputError: saying which residue and what to do.
    """
    amino = [r for r in residues if r.name in AMINO]
    if not amino:
        raise InputError("expected a peptide of 1 to 10 amino acids, found none; give a file or sequence that has one")
    if len(amino) > LONGEST:
        raise InputError(f"expected a peptide of 1 to {LONGEST} amino acids, found {len(amino)}; cut it to a fragment")
    for i, residue in enumerate(residues):
        if (residue.name in HEAD and i > 0) or (residue.name in TAIL and i < len(residues) - 1):
            raise InputError(f"expected the cap {residue.name} at its end of the chain, found it at place {i + 1}")
    if len(residues) == 1:
        raise InputError(
            "expected two residues or a cap (the force field has no single amino acid with both charged ends), "
            f"found {residues[0].printed} alone; cap it, for example ACE-{residues[0].printed}-NME"
        )
    for residue, cap in ((residues[0], "ACE"), (residues[-1], "NME or NH2")):
        if residue.variant in ("ASH", "GLH", "LYN"):
            raise InputError(
                f"expected {residue.variant} inside the chain or next to a cap (the force field has it nowhere else), "
                f"found it at a charged end as {residue.label}; cap that end with {cap}"
            )


def disulfides(residues: list[Residue]) -> list[tuple[int, int]]:
    """CYX joined in the order in which they stand.

    Raises:
        InputError: if one is left over.
    """
    places = [i for i, residue in enumerate(residues) if residue.variant == "CYX"]
    if len(places) % 2:
        raise InputError(f"expected CYX in pairs (a disulfide joins two), found {len(places)}; name the others CYS")
    return list(zip(places[::2], places[1::2], strict=True))


def _backbone(residues, phi, psi):
    """N, CA, C, O, CB and the atoms of caps, by internal coordinates (nm, degrees)."""
    chain: list[np.ndarray] = []
    atoms: list[dict[str, np.ndarray]] = [{} for _ in residues]
    previous_psi = psi
    for i, residue in enumerate(residues):
        proline = residue.name == "PRO"
        own_phi = -65.0 if proline else phi
        if not chain:
            first = np.array([[0.0, 0, 0], [0.1458, 0, 0]])
            turn = np.deg2rad(180 - 111.0)
            third = first[1] + 0.1525 * np.array([np.cos(turn), np.sin(turn), 0])
            chain = [first[0], first[1], third]
            if residue.name == "ACE":  # CH3 and C stand where CA and C would
                atoms[i] = {"CH3": chain[1], "C": chain[2]}
            else:
                atoms[i] = {"N": chain[0], "CA": chain[1], "C": chain[2]}
            previous_psi = psi
            continue
        n = place(*chain[-3:], 0.1335, 116.6, previous_psi)
        atoms[i - 1]["O"] = place(n, chain[-2], chain[-1], 0.1229, 120.5, 180.0, improper=True)
        chain.append(n)
        ca = place(*chain[-3:], 0.1449, 121.9, 180.0)
        chain.append(ca)
        if residue.name in TAIL:
            atoms[i] = {"N": n} if residue.name == "NH2" else {"N": n, "C": ca}
            continue
        c = place(*chain[-3:], 0.1525, 111.0, own_phi)
        chain.append(c)
        atoms[i] = {"N": n, "CA": ca, "C": c}
    last = atoms[-1]
    if residues[-1].name in AMINO:
        last["O"] = place(last["N"], last["CA"], last["C"], 0.125, 118.0, psi + 180)
    for residue, here in zip(residues, atoms, strict=True):
        if residue.name in AMINO and residue.name != "GLY":
            here["CB"] = place(here["C"], here["N"], here["CA"], 0.153, 109.7, -122.7)
    return atoms


def place(a, b, c, length, angle, dihedral, improper=False):
    """The atom d at `length` from c, with the angle b-c-d and the dihedral a-b-c-d (degrees)."""
    if improper:  # in the plane of a, b, c, on the other side: the carbonyl oxygen
        inward = (a - c) / np.linalg.norm(a - c) + (b - c) / np.linalg.norm(b - c)
        return c - length * inward / np.linalg.norm(inward)
    bc = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, bc)
    normal /= np.linalg.norm(normal)
    theta, tau = np.deg2rad(180.0 - angle), np.deg2rad(dihedral)
    local = np.array([np.cos(theta), np.sin(theta) * np.cos(tau), np.sin(theta) * np.sin(tau)])
    return c + length * (local[0] * bc + local[1] * np.cross(normal, bc) + local[2] * normal)
