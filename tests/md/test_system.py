"""Files of chemists: what is there is kept, what is missing is added, what is done is said."""

from functools import cache

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from timewarp.md import potential
from timewarp.md.energy import fingerprint
from timewarp.md.potential import create_system
from timewarp.md.relax import relax
from timewarp.md.sequence import build
from timewarp.md.stereo import chirality, trans
from timewarp.md.system import InputError, prepare, prepare_sequence, write_pdb

built = cache(prepare_sequence)

VARIANTS = "ALA-ASH-LYN-GLH-HID-HIP-SER"


@pytest.fixture
def file(tmp_path):
    """Writes a built sequence, its lines changed by a function."""

    def write(sequence, change=lambda lines: lines, name="x.pdb"):
        made = built(sequence)
        write_pdb(made.topology, made.positions, tmp_path / name)
        lines = (tmp_path / name).read_text().splitlines()
        (tmp_path / name).write_text("\n".join(change(lines)) + "\n")
        return tmp_path / name, made

    return write


def atom(line):
    """The atom name and the residue number of a line, or nothing."""
    return (line[12:16].strip(), line[22:26].strip()) if line.startswith(("ATOM", "HETATM")) else (None, None)


def without(*gone):
    return lambda lines: [line for line in lines if atom(line)[0] not in gone]


def no_hydrogens(lines):
    return [line for line in lines if not line.startswith(("ATOM", "HETATM")) or line[77] != "H"]


def renamed(old, new):
    return lambda lines: [f"{x[:17]}{new}{x[20:]}" if x[17:20] == old else x for x in lines]


def heavy(prepared):
    keys = [(a.residue.index, a.name) for a in prepared.topology.atoms() if a.element.symbol != "H"]
    places = [a.index for a in prepared.topology.atoms() if a.element.symbol != "H"]
    return dict(zip(keys, prepared.positions[places], strict=True))


@pytest.mark.parametrize(
    ("sequence", "suffix"),
    [("QWNL", ".pdb"), ("ACE-ALA-NME", ".ent"), ("PRO-HIS-NH2", ".mmcif"), (VARIANTS, ".pdb"), (VARIANTS, ".cif")],
)
def test_a_written_structure_reads_back(tmp_path, sequence, suffix):
    made, path = built(sequence), tmp_path / f"x{suffix}"
    if "cif" in suffix:
        with path.open("w") as out:
            app.PDBxFile.writeFile(made.topology, made.positions * unit.nanometer, out, keepIds=True)
    else:
        write_pdb(made.topology, made.positions, path)
    back = prepare(path)
    assert back.sequence == made.sequence
    assert [str(a) for a in back.topology.atoms()] == [str(a) for a in made.topology.atoms()]
    assert {frozenset((a.index, b.index)) for a, b in back.topology.bonds()} == {
        frozenset((a.index, b.index)) for a, b in made.topology.bonds()
    }
    moved = np.linalg.norm(back.positions - made.positions, axis=1)
    assert moved.max() < 0.03
    assert not any("added" in notice or "dropped" in notice for notice in back.notices)
    assert "minimised" in back.notices[-1]


def test_the_system_is_the_published_potential(file):
    """Against OpenMM's own reading of the same file."""
    path, _ = file("ACE-ALA-HIP-NME")
    ready, own = prepare(path), app.PDBFile(str(path))
    field = app.ForceField("amber14-all.xml", "implicit/obc1.xml")
    system = field.createSystem(own.topology, nonbondedMethod=app.CutoffNonPeriodic, nonbondedCutoff=2 * unit.nanometer)

    def energy(system):
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(own.positions)
        return context.getState(getEnergy=True).getPotentialEnergy()._value

    assert energy(ready.system) == pytest.approx(energy(system), abs=1e-6)
    assert ready.system.getNumConstraints() == 0
    assert not any(isinstance(force, openmm.CMMotionRemover) for force in ready.system.getForces())


def test_other_programs_read_what_is_written(file):
    path, made = file("CYX-ALA-ALA-CYX")
    frame = mdtraj.load(str(path))
    assert frame.n_atoms == made.topology.getNumAtoms()
    assert len(list(frame.topology.bonds)) == made.topology.getNumBonds()
    assert np.abs(frame.xyz[0] - made.positions).max() < 1e-3


def test_twice_gives_the_same(file):
    path, _ = file("HL", no_hydrogens)
    assert np.array_equal(prepare(path).positions, prepare(path).positions)


def test_hydrogens_are_added_and_said(file):
    path, made = file("QWNL", no_hydrogens)
    ready = prepare(path)
    assert [str(a) for a in ready.topology.atoms()] == [str(a) for a in made.topology.atoms()]
    count = sum(a.element.symbol == "H" for a in made.topology.atoms())
    assert f"added {count} hydrogens" in ready.notices
    kept = heavy(ready)
    assert max(np.linalg.norm(kept[key] - x) for key, x in heavy(made).items()) < 0.02


@pytest.mark.parametrize("hydrogens", [True, False])
def test_side_chains_are_added_with_the_right_hand(file, hydrogens):
    """Isoleucine and threonine have a second stereocentre, which is added here."""
    gone = without("CG1", "CG2", "CD1", "OG1", "CG", "CD", "CE", "NZ")
    path, made = file("ITIK", gone if hydrogens else lambda lines: gone(no_hydrogens(lines)))
    ready = prepare(path)
    assert ready.topology.getNumAtoms() == made.topology.getNumAtoms()
    assert all(sign == 1 for *_, sign in chirality(ready.topology, ready.positions))
    said = next(notice for notice in ready.notices if notice.startswith("added heavy atoms"))
    assert all(name in said for name in ("ILE 1:CG1", "ILE 1:CG2", "THR 2:OG1", "LYS 4:NZ"))
    kept, before = heavy(ready), heavy(made)
    assert max(np.linalg.norm(kept[i, "CA"] - before[i, "CA"]) for i in range(4)) < 0.03


def test_terminal_oxygen_is_added(file):
    path, _ = file("AA", without("OXT"))
    assert "added heavy atoms: ALA 2:OXT" in prepare(path).notices


@pytest.mark.parametrize("name", ["HID", "HIE", "HIP", "HSD", "HSE", "HSP"])
def test_names_say_the_protonation_where_hydrogens_do_not(file, name):
    path, _ = file("ACE-HIS-NME", lambda lines: renamed("HIS", name)(no_hydrogens(lines)))
    ready = prepare(path)
    expected = {"HSD": "HID", "HSE": "HIE", "HSP": "HIP"}.get(name, name)
    assert ready.sequence == f"ACE-{expected}-NME".replace("HIE", "HIS")
    assert not any(notice.startswith("took") for notice in ready.notices)


def test_hydrogens_outweigh_names(file):
    path, _ = file("ACE-HID-NME", renamed("HIS", "HIP"))
    ready = prepare(path)
    assert ready.sequence == "ACE-HID-NME"
    assert "took HIP 2 as HID: its hydrogens say so" in ready.notices


def test_unclear_histidine_is_said(file):
    path, _ = file("ACE-HIS-NME", no_hydrogens)
    assert any(notice.startswith("took HIS 2 as HIE") for notice in prepare(path).notices)


def test_the_proton_may_sit_on_the_other_oxygen(file):
    swap = {" OD1": " OD2", " OD2": " OD1", " HD2": " HD1"}
    path, _ = file("ACE-ASH-NME", lambda lines: [x[:12] + swap.get(x[12:16], x[12:16]) + x[16:] for x in lines])
    ready = prepare(path)
    assert ready.sequence == "ACE-ASH-NME"
    assert not any("added" in notice or "dropped" in notice for notice in ready.notices)


def test_names_of_hydrogens_do_not_matter(file):
    def scramble(lines):
        count = iter(range(1000))
        return [f"{x[:12]}H{next(count):<3d}{x[16:]}" if (atom(x)[0] or "C")[0] == "H" else x for x in lines]

    path, made = file(VARIANTS, scramble)
    ready = prepare(path)
    assert ready.sequence == made.sequence
    assert not any("added" in notice or "dropped" in notice for notice in ready.notices)


def test_disulfide_is_found(file):
    path, _ = file("CYX-ALA-ALA-CYX", no_hydrogens)
    ready = prepare(path)
    assert ready.sequence == "CYX-ALA-ALA-CYX"
    assert "joined CYS 1 and CYS 4 by a disulfide bond" in ready.notices
    assert ("SG", "SG") in [(a.name, b.name) for a, b in ready.topology.bonds()]


def test_water_and_ions_are_dropped_and_said(file):
    extra = [
        "HETATM  900  O   HOH W   1      30.000  30.000  30.000  1.00  0.00           O",
        "HETATM  901  O   HOH W   2      35.000  30.000  30.000  1.00  0.00           O",
        "HETATM  902 NA    NA I   1      30.000  35.000  30.000  1.00  0.00          NA",
    ]
    path, made = file("AA", lambda lines: lines[:-1] + extra + lines[-1:])
    ready = prepare(path)
    assert ready.topology.getNumAtoms() == made.topology.getNumAtoms()
    assert "dropped water: 2 residues" in ready.notices
    assert "dropped ions: 1 residue (NA)" in ready.notices


def test_the_first_model_is_taken(file):
    def models(lines):
        atoms = [line for line in lines if line.startswith("ATOM")]
        return ["MODEL        1", *atoms, "ENDMDL", "MODEL        2", *atoms, "ENDMDL", "END"]

    path, _ = file("AA", models)
    assert "took the first of 2 models" in prepare(path).notices


def test_the_more_occupied_location_is_taken(file):
    def split(lines):
        place = next(i for i, line in enumerate(lines) if atom(line) == ("OG", "2"))
        line = lines[place]
        a, b = (f"{line[:16]}{mark}{line[17:54]}{occ}{line[60:]}" for mark, occ in (("A", "  0.30"), ("B", "  0.70")))
        away = f"{a[:30]}{float(a[30:38]) + 0.4:8.3f}{a[38:]}"
        return [*lines[:place], away, b, *lines[place + 1 :]]

    path, made = file("AS", split)
    ready = prepare(path)
    assert any(notice.startswith("took alternate location B of SER 2 (occupancy 0.70)") for notice in ready.notices)
    assert np.linalg.norm(heavy(ready)[1, "OG"] - heavy(made)[1, "OG"]) < 0.01


def test_mirrored_and_cis_peptides_are_kept_and_said(tmp_path):
    made = built("ALA-SER-NH2")
    write_pdb(made.topology, made.positions * [1, 1, -1], tmp_path / "d.pdb")
    ready = prepare(tmp_path / "d.pdb")
    assert [sign for *_, sign in chirality(ready.topology, ready.positions)] == [-1, -1]
    assert sum("hand opposite" in notice for notice in ready.notices) == 2
    assert all(value for _, value in trans(ready.topology, ready.positions))

    made = built("GP")
    turned = _turned(made, 180.0)
    write_pdb(made.topology, turned, tmp_path / "cis.pdb")
    assert any(
        notice.startswith("kept the cis peptide bond GLY1-PRO2") for notice in prepare(tmp_path / "cis.pdb").notices
    )


def _turned(made, degrees):
    """The second residue turned about the peptide bond."""
    at = {(a.residue.index, a.name): a.index for a in made.topology.atoms()}
    c, n = made.positions[at[0, "C"]], made.positions[at[1, "N"]]
    axis, angle = (n - c) / np.linalg.norm(n - c), np.deg2rad(degrees)
    positions = made.positions.copy()
    for (residue, _), index in at.items():
        if residue == 1:
            x = positions[index] - c
            along = axis * (axis @ x)
            positions[index] = c + along + (x - along) * np.cos(angle) + np.cross(axis, x) * np.sin(angle)
    return positions


def test_deuterium_and_foreign_numbers_are_read(file):
    def foreign(lines):
        lines = [f"{x[:22]}{int(x[22:26]) + 40:4d}{x[26:]}" if x.startswith("ATOM") else x for x in lines]
        return [f"{x[:12]} D  {x[16:76]} D{x[78:]}" if atom(x) == ("H", "42") else x for x in lines]

    path, made = file("AA", foreign)
    assert prepare(path).sequence == made.sequence == "AA"


def test_a_force_field_without_the_residue_says_so(file):
    path, _ = file("ALA-ALA-NH2")
    with pytest.raises(InputError, match=r"expected residues that implicit/obc1\.xml has parameters for"):
        prepare(path, forcefield=("implicit/obc1.xml",))
    with pytest.raises(InputError, match="expected force-field files that OpenMM can read"):
        prepare(path, forcefield=("none.xml",))


def test_relaxing_holds_what_it_is_told_to_hold():
    made = built("AA")
    rng = np.random.default_rng(1)
    start = made.positions + rng.normal(size=made.positions.shape) * 0.01
    held = np.arange(len(start)) < 10
    after, before_energy, energy = relax(create_system(made.topology), start, held, stiffness=1e7)
    moved = np.linalg.norm(after - start, axis=1)
    assert moved[held].max() < 2e-3 < moved[~held].max()
    assert energy < before_energy


@pytest.mark.parametrize(
    "sequence", ["ACDEF", "GHIKL", "MNPQR", "STVWY", "ACE-HIP-ASH-GLH-LYN-NME", "ACE-PRO-NME", "HIE-HID-ALA", "CACAC"]
)
def test_the_part_for_proteins_is_the_whole_force_field_for_peptides(sequence):
    topology, _ = build(sequence)
    whole = app.ForceField(*potential.FORCEFIELD).createSystem(
        topology,
        nonbondedMethod=app.CutoffNonPeriodic,
        nonbondedCutoff=2.0 * unit.nanometer,
        removeCMMotion=False,
        rigidWater=False,
    )
    assert fingerprint(create_system(topology)) == fingerprint(whole)
