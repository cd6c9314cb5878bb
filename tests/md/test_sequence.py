"""Built structures: the chemistry is right wherever it can be measured, and the same each time."""

import random
import re
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from timewarp.md.faults import InputError
from timewarp.md.potential import create_system
from timewarp.md.sequence import build, parse
from timewarp.md.stereo import chirality
from timewarp.md.system import prepare, prepare_sequence, write_pdb

ROOT = Path(__file__).parents[2]
AMINO = "ARNDCQEGHILKMFPSTWYV"
RING = [AMINO[i] + AMINO[(i + 7) % 20] for i in range(20)]  # each amino acid at both ends


def charge(topology):
    """Elementary charges of the force field."""
    system = create_system(topology)
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    total = sum(force.getParticleParameters(i)[0]._value for i in range(force.getNumParticles()))
    return round(float(total), 3)


def closest(topology, positions):
    """Smallest distance between atoms that are three bonds or more apart, nm."""
    near = {frozenset((a.index, b.index)) for a, b in topology.bonds()}
    near |= {a ^ b for a in near for b in near if len(a & b) == 1}
    gaps = np.linalg.norm(positions[:, None] - positions, axis=-1)
    return min(gaps[i, j] for i in range(len(gaps)) for j in range(i) if frozenset((i, j)) not in near)


@pytest.mark.parametrize("sequence", [*RING, "ANKSMIEA", "ACE-ALA-NME", "ALA-PRO-NH2", "ACE-ILE-THR"])
def test_structure_is_sane(sequence):
    topology, positions = build(sequence)
    frames = mdtraj.Trajectory(positions[None].astype(np.float32), mdtraj.Topology.from_openmm(topology))
    omega = np.rad2deg(mdtraj.compute_omega(frames)[1])
    assert positions.dtype == np.float64
    assert (np.abs(omega) > 150).all()
    assert all(sign == 1 for *_, sign in chirality(topology, positions))
    assert closest(topology, positions) > 0.14
    names = [residue.name for residue in parse(sequence)]
    capped = (names[0] == "ACE") - (names[-1] in ("NME", "NH2"))
    sides = sum({"LYS": 1, "ARG": 1, "ASP": -1, "GLU": -1}.get(name, 0) for name in names)
    assert charge(topology) == sides - capped  # a cap takes the charge of its end away


DEXTRO = ["ALA-DHI", "ALA-DIL", "ALA-DLY", "ALA-MED", "ALA-DTH", "ALA-DTR"]


@pytest.mark.parametrize("sequence", [*DEXTRO, "ACE-DAL-NME", "DAL-GLY-ILE"])
def test_d_amino_acids_have_the_other_hand_and_a_file_of_them_reads_as_it_was_named(sequence, tmp_path):
    made = prepare_sequence(sequence)
    assert made.sequence == sequence
    names = sequence.split("-")
    for residue, _, sign in chirality(made.topology, made.positions):
        assert (sign < 0) == (names[residue.index][0] == "D" or names[residue.index] == "MED")
    assert closest(made.topology, made.positions) > 0.14
    write_pdb(made.topology, made.positions, tmp_path / "made.pdb")
    again = prepare(tmp_path / "made.pdb")  # under the names of the force field, with a notice
    assert any("hand opposite" in notice for notice in again.notices)
    text = (tmp_path / "made.pdb").read_text()
    for number, name in enumerate(names, 1):
        residue = next(r for r in made.topology.residues() if r.index == number - 1)
        text = re.sub(rf"{residue.name} (.) *{number} ", lambda m, n=name: m[0].replace(m[0][:3], n), text)
    (tmp_path / "named.pdb").write_text(text)
    assert prepare(tmp_path / "named.pdb").sequence == sequence


def test_a_name_that_the_geometry_does_not_have_is_refused(tmp_path):
    made = prepare_sequence("AG")
    write_pdb(made.topology, made.positions, tmp_path / "made.pdb")
    (tmp_path / "wrong.pdb").write_text((tmp_path / "made.pdb").read_text().replace("ALA", "DAL"))
    with pytest.raises(InputError, match="hand of a D amino acid at DAL 1, found that of an L one"):
        prepare(tmp_path / "wrong.pdb")
    with pytest.raises(InputError, match="expected no DPR"):
        prepare_sequence("ALA-DPR")


def test_handedness_agrees_with_the_side_chain_dihedral():
    """In L amino acids, seen along C to N about CA, CB is behind: the dihedral C-N-CA-CB is near -120 degrees."""
    topology, positions = build("AF")
    for residue in topology.residues():
        at = {atom.name: atom.index for atom in residue.atoms()}
        frame = mdtraj.Trajectory(positions[None].astype(np.float32), mdtraj.Topology.from_openmm(topology))
        angle = mdtraj.compute_dihedrals(frame, [[at[name] for name in ("C", "N", "CA", "CB")]])
        assert np.rad2deg(angle[0, 0]) == pytest.approx(-120, abs=15)


def test_mirror_image_is_noticed():
    topology, positions = build("IT")
    signs = [sign for *_, sign in chirality(topology, positions * [1, 1, -1])]
    assert signs == [-1] * 4


def test_the_same_whatever_the_global_generator_says():
    random.seed(3)
    one = build("HL")
    random.seed(4)
    two = build("HL")
    assert np.array_equal(one[1], two[1])
    assert [a.name for a in one[0].atoms()] == [a.name for a in two[0].atoms()]


@pytest.mark.parametrize(
    ("sequence", "hydrogens", "total"),
    [
        ("ACE-HIS-NME", {"HE2"}, 0),
        ("ACE-HIE-NME", {"HE2"}, 0),
        ("ACE-HID-NME", {"HD1"}, 0),
        ("ACE-HIP-NME", {"HD1", "HE2"}, 1),
        ("ACE-ASP-NME", set(), -1),
        ("ACE-ASH-NME", {"HD2"}, 0),
        ("ACE-GLU-NH2", set(), -1),
        ("ACE-GLH-NH2", {"HE2"}, 0),
        ("ACE-LYS-NME", {"HZ1", "HZ2", "HZ3"}, 1),
        ("ACE-LYN-NME", {"HZ1", "HZ2"}, 0),
    ],
)
def test_variants_have_their_protons(sequence, hydrogens, total):
    topology, _ = build(sequence)
    residue = list(topology.residues())[1]
    parents = ("ND1", "NE2", "OD1", "OD2", "OE1", "OE2", "NZ")
    bonded = {b.name for a, b in residue.bonds() if a.name in parents and b.element.symbol == "H"}
    assert bonded == hydrogens
    assert charge(topology) == total


@pytest.mark.parametrize("sequence", ["CYX-ALA-ALA-CYX", "ACE-CYX-CYX-NME"])
def test_disulfide_is_closed(sequence):
    topology, positions = build(sequence)
    sulfurs = [atom.index for atom in topology.atoms() if atom.name == "SG"]
    assert sulfurs in [sorted((a.index, b.index)) for a, b in topology.bonds()]
    assert np.linalg.norm(positions[sulfurs[0]] - positions[sulfurs[1]]) == pytest.approx(0.204, abs=0.01)
    assert "HG" not in [atom.name for atom in topology.atoms()]


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("", "expected a sequence such as"),
        ("A A", "expected a sequence such as"),
        ("AXA", "found X at place 2"),
        ("ACE-ALA-FOO", "found FOO at place 3"),
        ("A", "alone; cap it, for example ACE-ALA-NME"),
        ("A" * 11, "expected a peptide of 1 to 10 amino acids, found 11"),
        ("ACE-NME", "expected a peptide of 1 to 10 amino acids, found none"),
        ("ALA-ACE-ALA", "expected the cap ACE at its end"),
        ("ASH-ALA", "found it at a charged end as ASP1; cap that end with ACE"),
        ("ALA-CYX", "expected CYX in pairs"),
    ],
)
def test_what_cannot_be_built(sequence, message):
    with pytest.raises(InputError, match=message) as error:
        build(sequence)
    assert "\n" not in str(error.value)


def test_examples_are_what_their_commands_make(tmp_path):
    """The files of peptides/ against the commands in its README."""
    commands = re.findall(r"timewarp build (\S+) --out peptides/(\S+)", (ROOT / "peptides/README.md").read_text())
    assert {name for _, name in commands} == {file.name for file in (ROOT / "peptides").glob("*.pdb")}
    for sequence, name in commands:
        made = prepare_sequence(sequence)
        write_pdb(made.topology, made.positions, tmp_path / name)
        old, new = (app.PDBFile(str(folder / name)) for folder in (ROOT / "peptides", tmp_path))
        assert [str(a) for a in old.topology.atoms()] == [str(a) for a in new.topology.atoms()]
        # minimisers stop elsewhere on other processors, groups that turn even in another minimum; what is stiff is near
        joined = np.zeros((len(made.positions), len(made.positions)), dtype=int)
        for one, other in old.topology.bonds():
            joined[one.index, other.index] = joined[other.index, one.index] = 1
        near = np.argwhere(np.triu(joined + joined @ joined, 1))
        both = [np.array(file.positions.value_in_unit(unit.nanometer)) for file in (old, new)]
        apart = [np.linalg.norm(x[near[:, 0]] - x[near[:, 1]], axis=1) for x in both]
        assert np.abs(apart[0] - apart[1]).max() < 0.02
        for center in np.flatnonzero(joined.sum(0) == 4):
            hands = [np.linalg.det(x[np.flatnonzero(joined[center])[:3]] - x[center]) for x in both]
            assert hands[0] * hands[1] > 0


def test_examples_are_ready_to_sample():
    for file in (ROOT / "peptides").glob("*.pdb"):
        ready = prepare(file)
        assert ready.sequence == file.stem
        assert not [n for n in ready.notices if not n.startswith(("minimised", "took HIS"))]
