"""The example scripts run as they stand, are short, and are named in the README."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORT = {
    "plain_simulation": "40",
    "replica_exchange": "2",
    "with_openmmtools": "2",
    "analysis": "40",
    "own_forcefield": "4",
}


def run(name, folder, monkeypatch, capsys):
    """What the script prints, run in `folder` with few steps."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, SHORT[name]])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_there_are_five_of_at_most_thirty_lines_and_the_readme_names_them():
    assert {path.stem for path in EXAMPLES} == SHORT.keys()
    readme = (ROOT / "README.md").read_text()
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) <= 30, path.name
        assert f"examples/{path.name}" in readme


@pytest.mark.usefixtures("few_conformers")
def test_a_plain_simulation(tmp_path, monkeypatch, capsys):
    said = run("plain_simulation", tmp_path, monkeypatch, capsys)
    assert re.fullmatch(r"step 40: \d+ of 20 proposals accepted\n", said)
    rows = np.genfromtxt(tmp_path / "plain.csv", delimiter=",")
    assert rows[:, 0].tolist() == list(range(4, 41, 4))
    topology = mdtraj.load(str(ROOT / "peptides" / "AA.pdb")).topology
    assert len(mdtraj.load(str(tmp_path / "plain.dcd"), top=topology)) == 10
    assert (tmp_path / "plain.chk").stat().st_size


@pytest.mark.usefixtures("few_conformers")
def test_replica_exchange(tmp_path, monkeypatch, capsys):
    said = run("replica_exchange", tmp_path, monkeypatch, capsys)
    assert re.fullmatch(r"310 K: \d+ of 20 proposals accepted\n370 K: \d+ of 20 proposals accepted\n", said)
    topology = mdtraj.load(str(ROOT / "peptides" / "AA.pdb")).topology
    assert len(mdtraj.load(str(tmp_path / "coldest.dcd"), top=topology)) == 2


@pytest.mark.usefixtures("few_conformers")
def test_openmmtools(tmp_path, monkeypatch, capsys):
    said = run("with_openmmtools", tmp_path, monkeypatch, capsys)
    assert re.fullmatch(r"\d+ of 20 proposals accepted, -\d+\.\d* kJ/mol\n", said)


@pytest.mark.usefixtures("few_conformers")
@pytest.mark.filterwarnings("ignore")  # of MDAnalysis about its own readers
def test_analysis(tmp_path, monkeypatch, capsys):
    said = run("analysis", tmp_path, monkeypatch, capsys)
    found = re.fullmatch(
        r"20 frames, \d+ crossings of phi = 0\nmdtraj and MDAnalysis differ by (\S+) degrees.*\n", said
    )
    assert found is not None, said
    assert float(found[1]) < 0.1


@pytest.mark.usefixtures("few_conformers")
def test_a_force_field_of_ones_own(tmp_path, monkeypatch, capsys):
    said = run("own_forcefield", tmp_path, monkeypatch, capsys)
    assert said.startswith("OpenMM computes the energy, one configuration at a time: ")
    assert re.search(r"CustomCompoundBondForce\n\d+ of 20 proposals accepted\n$", said)


@pytest.mark.long
def test_one_of_them_as_a_user_runs_it(tmp_path):
    script = str(ROOT / "examples" / "plain_simulation.py")
    done = subprocess.run([sys.executable, script, "20000"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
