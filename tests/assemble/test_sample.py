"""`timewarp sample` and `timewarp explore`, from a file to a report."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module

import mdtraj
import numpy as np
import pytest
import torch

from timewarp import assemble
from timewarp.assemble.energy import energy_of
from timewarp.cli import execute
from timewarp.md.system import prepare
from timewarp.resources import peptide_path
from timewarp.settings import ExploreSettings, SampleSettings

module = import_module("timewarp.assemble.sample")  # the package has a function of that name
COMMAND = [sys.executable, "-m", "timewarp.cli"]
KEYS = {
    *("exact", "peptide", "atoms", "temperature", "checkpoint", "seed", "chains", "steps", "moves_proposed"),
    *("moves_accepted", "acceptance", "energy_evaluations", "seconds", "ess", "rhat", "ess_per_second", "verdict"),
    "reasons",
}


def silent(*_):
    pass


def never():
    return False


def settings(out, steps, **changes):
    given = {"pdb": peptide_path("AA"), "out": out, "steps": steps, "chains": 2, "width": 8, "seed": 3, "warm_up": 4}
    return SampleSettings(**(given | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "AA"
    return out, assemble.sample(settings(out, 40), silent, never)


def test_a_ring_that_puckers_is_sampled_saved_and_resumed(tmp_path, few_conformers):
    from timewarp.md.system import prepare_sequence, write_pdb

    prepared = prepare_sequence("PG")
    write_pdb(prepared.topology, prepared.positions, tmp_path / "PG.pdb")
    whole, parts = (settings(tmp_path / name, 12, pdb=tmp_path / "PG.pdb", particles=1) for name in ("one", "two"))
    assemble.sample(whole, silent, never)
    assemble.sample(replace(parts, steps=5), silent, never)
    assemble.sample(replace(parts, resume=True), silent, never)
    for k in range(2):
        name = f"chain-{k:03d}.dcd"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_run_leaves_the_files_of_the_design(run):
    out, report = run
    assert set(KEYS) <= set(json.loads((out / "report.json").read_text()))
    assert (report["exact"], report["steps"], report["atoms"]) == (True, 40, 23)
    trajectory = mdtraj.load([out / f"chain-{i:03d}.dcd" for i in range(2)], top=out / "topology.pdb")
    assert len(trajectory) == 80
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    assert log.dtype.names == ("chain", "step", "potential_kj_per_mol", "accepted")
    assert "<html" in (out / "report.html").read_text()


def test_the_logged_energies_are_those_of_openmm_at_the_saved_frames(run):
    from timewarp.md.energy import OpenMMEnergy

    out, _ = run
    frames = mdtraj.load(out / "chain-000.dcd", top=out / "topology.pdb").xyz
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    logged = log["potential_kj_per_mol"][log["chain"] == 0]
    reference = OpenMMEnergy(prepare(peptide_path("AA")).system, 310.0, "Reference")
    found = reference.kilojoules(torch.as_tensor(frames))[0].numpy()
    assert np.abs(found - logged).max() < 0.02  # single-precision coordinates in the file


def test_a_resumed_run_equals_one_left_alone(run, tmp_path):
    out, _ = run
    again = tmp_path / "AA"
    assemble.sample(settings(again, 13), silent, never)
    assemble.sample(settings(again, 40, resume=True), silent, never)
    for name in ("chain-000.dcd", "chain-001.dcd", "log.csv"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """A run of the command with OpenMM's word the last."""
    out = tmp_path_factory.mktemp("verified") / "AA"
    words = ["--steps", "40", "--chains", "2", "--width", "8", "--seed", "3", "--warm-up", "4", "--verify"]
    command = [*COMMAND, "sample", str(peptide_path("AA")), "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, json.loads((out / "report.json").read_text())


def test_openmm_has_the_last_word_where_it_is_asked_for(verified):
    from timewarp.md.energy import OpenMMEnergy

    out, report = verified
    assert report["exact"]
    assert "--verify" in report["command"]
    found = report["verify"]
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    assert found["tests"] == log["accepted"].sum() + found["refused"] > 20
    assert found["refused"] <= 1  # single precision is wrong by next to nothing
    assert 0 < found["largest_difference_kj_per_mol"] < 0.01
    assert any("had the last word" in notice for notice in report["notices"])
    assert "had the last word" in (out / "report.html").read_text()
    frames = mdtraj.load(out / "chain-000.dcd", top=out / "topology.pdb").xyz
    reference = OpenMMEnergy(prepare(peptide_path("AA")).system, 310.0, "Reference")
    again = reference.kilojoules(torch.as_tensor(frames).double())[0].numpy()
    assert np.abs(again - log["potential_kj_per_mol"][log["chain"] == 0]).max() < 0.02


def test_a_verified_run_that_is_resumed_equals_one_left_alone(verified, tmp_path):
    out, report = verified
    again = tmp_path / "AA"
    assemble.sample(settings(again, 13, verify=True), silent, never)
    resumed = assemble.sample(settings(again, 40, resume=True, verify=True), silent, never)
    assert resumed["verify"] == report["verify"]
    for name in ("chain-000.dcd", "chain-001.dcd", "log.csv"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_a_batched_energy_that_is_wrong_by_much_is_found_out(tmp_path, monkeypatch):
    right = module.energy_of

    def wrong(prepared, temperature, **more):
        energy, molecule, notices = right(prepared, temperature, **more)
        return lambda x: energy(x) + 2 * torch.sin(40 * (x[..., 0, :] - x[..., -1, :]).norm(dim=-1)), molecule, notices

    monkeypatch.setattr(module, "energy_of", wrong)
    report = assemble.sample(settings(tmp_path / "AA", 40, verify=True), silent, never)
    assert report["verify"]["refused"] > 5
    assert 1 < report["verify"]["largest_difference_kj_per_mol"] < 5.2  # 2 kT


def test_annealing_can_be_asked_for(run, tmp_path):
    _, plain = run
    report = assemble.sample(settings(tmp_path / "AA", 40, anneal=4), silent, never)
    assert report["exact"]
    # every gradient of a path counts, and those of a draw
    assert report["energy_evaluations"] > 1.5 * plain["energy_evaluations"]
    assert plain["energy_evaluations"] > 4 * plain["moves_proposed"]


def test_acceptance_of_the_shipped_checkpoint_is_not_an_accident(run):
    _, report = run
    tested, accepted = report["by_kernel"]["flow"]
    assert accepted / tested > 0.1
    assert report["by_kernel"]["flow"] == [report["moves_proposed"], report["moves_accepted"]]


def test_explore_says_that_it_is_not_exact_and_keeps_handedness(tmp_path):
    out = tmp_path / "AA"
    report = assemble.explore(ExploreSettings(pdb=peptide_path("AA"), out=out, steps=30, chains=8), silent, never)
    assert report["exact"] is False
    assert report["verdict"] == "not converged"
    from timewarp.analysis import Ensemble

    assert Ensemble.load(out / "topology.pdb", sorted(out.glob("chain-*.dcd"))).flipped() == 0


def test_the_energy_is_checked_before_anything_is_sampled(tmp_path, monkeypatch):
    prepared = prepare(peptide_path("AA"))
    prepared.system.getForce(0).setBondParameters(0, 0, 1, 0.2, 1e5)
    energy_of(prepared, 310.0)  # another force field is fine, as long as both evaluate it alike
    monkeypatch.setattr("timewarp.units.COULOMB", 139.5)
    with pytest.raises(RuntimeError, match="agree with OpenMM"):
        energy_of(prepared, 310.0)


def test_interrupt_saves_and_reports(tmp_path):
    command = [*COMMAND, "sample", str(peptide_path("AA")), "--out", "run", "--seconds", "300", "--chains", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "state.safetensors"
    for _ in range(600):
        if log.exists() or process.poll() is not None:
            break
        time.sleep(0.2)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "saved" in out + err
    assert "Traceback" not in err
    assert (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize(
    "text",
    ["", "not a pdb\n", "HEADER\nEND\n", "ATOM      1  O   HOH A   1       0.000   0.000   0.000\nEND\n"],
    ids=["empty", "prose", "no atoms", "water"],
)
def test_input_that_cannot_be_sampled_is_one_line_and_status_2(text, tmp_path, capsys):
    pdb = tmp_path / "bad.pdb"
    pdb.write_text(text)
    assert execute(["sample", str(pdb), "--out", str(tmp_path / "out"), "--steps", "5"]) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
