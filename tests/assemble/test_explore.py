"""`explore --upgrade`: states with a structure each, then exact chains that start in them."""

import json

import mdtraj
import pytest
import torch

from timewarp.assemble import exploration
from timewarp.assemble import peptide as building
from timewarp.cli import execute
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.system import prepare
from timewarp.resources import peptide_path

QUICK = {building: {"CONFORMERS": 4, "WALKERS": 16, "ROUNDS": (30,)}, exploration: {"WALKERS": 8, "STEPS": 20}}
WORDS = ["--seed", "2", "--chains", "12", "--steps", "12"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "AA"
    with pytest.MonkeyPatch.context() as patch:
        for module, values in QUICK.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        assert execute(["explore", str(peptide_path("AA")), "--out", str(out), "--upgrade", *WORDS]) == 0
    return out, json.loads((out / "report.json").read_text())


def test_each_state_has_a_structure_and_a_time(run):
    out, report = run
    assert report["exact"] is False
    assert sum(row["share"] for row in report["states"]) == pytest.approx(1)
    prepared = prepare(peptide_path("AA"))
    energy = OpenMMEnergy(prepared.system, 310.0, "Reference")
    assert len(report["states"]) > 1
    for row in report["states"]:
        positions = torch.as_tensor(mdtraj.load_pdb(str(out / row["file"])).xyz)
        assert exploration.words_of(prepared, positions) == [row["state"]]
        # three decimals of an angstrom
        assert float(energy.kilojoules(positions)[0]) == pytest.approx(row["potential_kj_per_mol"], abs=3)
        assert 1 <= row["first_step"] <= 12
        assert 0 < row["first_seconds"] <= report["seconds"]
        assert row["free_energy"] is row["error"] is None  # shares of a biased run are no populations


def test_exact_chains_start_in_the_states_and_say_how_probable_they_are(run):
    out, report = run
    exact = json.loads((out / "exact" / "report.json").read_text())
    assert exact["exact"] is True
    assert exact["steps"] == 12
    upgraded = report["upgraded"]
    assert upgraded["states"] == exact["states"]
    assert sum(row["share"] for row in upgraded["states"]) == pytest.approx(1)
    assert all(row["error"] > 0 for row in upgraded["states"] if row["share"] < 1)
    assert upgraded["verdict"] == "not converged"  # after 12 steps
    found = {row["state"] for row in report["states"]}
    assert set(upgraded["basins"]["explored"]) & found
    page = (out / "report.html").read_text()
    assert "Exact populations" in page
    assert page.count("balls and sticks") == len(report["states"])


def test_an_exploration_that_is_over_can_be_upgraded_later(run):
    out, report = run
    words = ["explore", str(peptide_path("AA")), "--out", str(out), "--resume", *WORDS]
    with pytest.MonkeyPatch.context() as patch:
        for module, values in QUICK.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        assert execute([*words, "--upgrade"]) == 0
    again = json.loads((out / "report.json").read_text())
    assert again["states"] == [
        row | {"first_seconds": found["first_seconds"]}
        for row, found in zip(report["states"], again["states"], strict=True)
    ]
    assert again["upgraded"]["states"][0]["share"] == report["upgraded"]["states"][0]["share"]
    assert (out / "topology.pdb").exists()


def test_states_are_listed_by_exact_runs_too(run):
    out, _ = run
    exact = json.loads((out / "exact" / "report.json").read_text())
    assert [row["file"] for row in exact["states"]] == sorted(p.name for p in (out / "exact").glob("state-*.pdb"))
