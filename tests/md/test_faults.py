"""Input that cannot be sampled: one exception and one line, whatever is wrong with a file or done to it."""

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import openmm
import pytest
from md.broken import CIF_FAULTS, FAULTS, mmcif, sound
from md.damage import CHANGES, damaged
from openmm import unit

from timewarp.md.read import LARGEST
from timewarp.md.system import InputError, Prepared, prepare, prepare_sequence, write_pdb

SOURCES = ("AA", "HL", "ACE-ALA-NME", "ACE-CYX-PRO-CYX-NME", "ACE-ASP-NH2", "WK", "GTI", "QE")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return sound(tmp_path_factory.mktemp("good"))


def refused(path, message):
    with pytest.raises(InputError, match=message) as error:
        prepare(path)
    text = str(error.value)
    assert text.startswith(f"{path}: expected ")
    assert ", found" in text
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize("name", FAULTS)
def test_fault(good, tmp_path, name):
    source, change, message = FAULTS[name]
    changed = change(good[source])
    path = tmp_path / "x.pdb"
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    refused(path, message)


@pytest.mark.parametrize("name", CIF_FAULTS)
def test_fault_of_mmcif(good, tmp_path, name):
    change, message = CIF_FAULTS[name]
    path = tmp_path / "x.cif"
    path.write_text(change(good["cif"]))
    refused(path, message)


def test_sound_files_are_not_refused(good, tmp_path):
    """The faults above start from files that are sound."""
    for name, text in good.items():
        path = tmp_path / ("x.cif" if name == "cif" else "x.pdb")
        path.write_text(text)
        assert isinstance(prepare(path), Prepared)


def test_paths_that_are_no_files(good, tmp_path):
    refused(tmp_path / "none.pdb", "found none of this name")
    (tmp_path / "folder.pdb").mkdir()
    refused(tmp_path / "folder.pdb", "found a directory")
    (tmp_path / "x.xyz").write_text(good["AA"])
    refused(tmp_path / "x.xyz", "found .xyz; convert it")
    (tmp_path / "x").write_text(good["AA"])
    refused(tmp_path / "x", "found no suffix")
    (tmp_path / "loop.pdb").symlink_to(tmp_path / "loop.pdb")
    refused(tmp_path / "loop.pdb", "found none of this name|can be read")
    os.mkfifo(tmp_path / "pipe.pdb")
    refused(tmp_path / "pipe.pdb", "found a device or a pipe")
    refused("a\0b.pdb", "none of this name|can be read")
    refused("a" * 200 + ".pdb", "none of this name|can be read")


def test_a_file_that_may_not_be_read(good, tmp_path, monkeypatch):
    path = tmp_path / "x.pdb"
    path.write_text(good["AA"])

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    refused(path, "found: Permission denied; check the path and its rights")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Sound files of several peptides, by kind."""
    path, found = tmp_path_factory.mktemp("sources") / "x.pdb", {"pdb": [], "cif": []}
    for sequence in SOURCES:
        made = prepare_sequence(sequence)
        write_pdb(made.topology, made.positions, path)
        found["pdb"].append(path.read_text())
        found["cif"].append(mmcif(made))
    return found


def outcome(path) -> str:
    """`prepared` or `refused`, in less than half a minute; anything else is an error."""
    start = time.process_time()
    try:
        found = prepare(path)
    except InputError as error:
        said = str(error)
        assert said.startswith(f"{path}: expected ")
        assert ", found" in said
        assert "\n" not in said
        assert len(said) < 600
        return "refused"
    finally:
        assert time.process_time() - start < 30
    assert np.isfinite(energy(found))
    return "prepared"


def energy(found: Prepared) -> float:
    """Kilojoules a mole of a prepared peptide, without what prepared it."""
    context = openmm.Context(
        found.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(found.positions)
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def outcomes(sources, kind, seeds, path) -> Counter:
    found = Counter()
    for seed in seeds:
        path.write_bytes(damaged(sources[kind][seed % len(SOURCES)], kind, seed))
        found[outcome(path)] += 1
    return found


@pytest.mark.parametrize("kind", CHANGES)
def test_damaged_files_are_prepared_or_refused(sources, tmp_path, kind):
    each = len(CHANGES[kind])
    found = outcomes(sources, kind, range(2 * each), tmp_path / f"x.{kind}")
    assert found.total() == 2 * each
    assert min(found["prepared"], found["refused"]) >= 2


@pytest.mark.long
@pytest.mark.parametrize("kind", CHANGES)
def test_a_thousand_damaged_files_are_prepared_or_refused(sources, tmp_path, kind):
    """Prints how many of 1000 files end in a molecule of finite energy, and how many in one line."""
    found = outcomes(sources, kind, range(1000, 2000), tmp_path / f"x.{kind}")
    print(kind, dict(found))
    assert found.total() == 1000
    assert min(found["prepared"], found["refused"]) >= 50


def test_damage_is_the_same_each_time_and_of_many_kinds(sources):
    for kind in CHANGES:
        text = sources[kind][0]
        made = [damaged(text, kind, seed) for seed in range(60)]
        assert made == [damaged(text, kind, seed) for seed in range(60)]
        assert len(set(made)) > 50


HEADING = "data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n"
LARGE = {  # what would take a careless reader hours, or all of the memory
    "open quotes": ("cif", lambda good: HEADING + "'x " * 100_000, "no ATOM|rows of 4|expected a number"),
    "closed quotes": ("cif", lambda good: HEADING + "'x'a " * 100_000, "rows of 4|expected a number"),
    "long number": ("cif", lambda good: HEADING + "1 " + "1" * 300_000 + "x 1 1\n", "expected a number"),
    "one residue of thousands": ("pdb", lambda good: "".join(_hydrogens(6000)) + "END\n", "found 6000"),
    "too large": ("pdb", lambda good: " " * (LARGEST + 1), "found .* MB"),
}


def _hydrogens(count):
    for i in range(count):
        name = f"H{i % 10}{chr(65 + i // 10 % 26)}{chr(65 + i // 260 % 26)}"
        yield f"ATOM      1 {name} ALA A   1    {i % 97:8.3f}{i % 89:8.3f}{i % 83:8.3f}  1.00  0.00           H\n"


@pytest.mark.parametrize("name", LARGE)
def test_large_files_are_refused_soon(good, tmp_path, name):
    kind, make, message = LARGE[name]
    path = tmp_path / f"x.{kind}"
    path.write_text(make(good))
    start = time.process_time()
    refused(path, message)
    assert time.process_time() - start < 10


def test_an_empty_quoted_value_keeps_its_column(good, tmp_path):
    path = tmp_path / "x.cif"
    # the column of alternate locations
    path.write_text(good["cif"].replace(" . ALA", " '' ALA", 3))
    assert prepare(path).sequence == "AA"
