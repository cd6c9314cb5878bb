"""`sample --until converged`: chains from different states, a warm-up that leaves no frame, and an end that no clock
decides."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from timewarp import assemble
from timewarp.analysis import convergence
from timewarp.assemble import exploration, fusing, looping
from timewarp.assemble import peptide as building
from timewarp.assemble.exploration import Exploration, unvisited
from timewarp.assemble.sample import MOVES
from timewarp.cli import execute
from timewarp.md.system import prepare
from timewarp.resources import peptide_path
from timewarp.settings import SampleSettings, SettingsError, Until

QUICK = {
    building: {"CONFORMERS": 4, "WALKERS": 16, "ROUNDS": (30,)},
    exploration: {"WALKERS": 8, "STEPS": 40},
    convergence: {"RHAT": 1.1, "ESS_PER_CHAIN": 10},
    looping: {"FIRST": 12},
    # a run with a limit of steps would choose otherwise, and round otherwise
    fusing: {"LOADED_SECONDS": float("inf"), "WORTH_SECONDS": float("inf")},
}


def silent(*_):
    pass


def never():
    return False


def settings(out, **changes):
    given = {"pdb": peptide_path("AA"), "out": out, "seconds": 300.0, "chains": 4, "width": 50, "seed": 3}
    return SampleSettings(**(given | {"until": Until.CONVERGED, "warm_up": 20} | changes))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Less is walked before the first move than a user would want, and less is taken for convergence."""
    with pytest.MonkeyPatch.context() as patch:
        for module, values in QUICK.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "AA"
    return out, assemble.sample(settings(out), silent, never)


def test_a_run_ends_when_it_has_converged(run):
    out, report = run
    assert report["verdict"] == "converged"
    assert report["reasons"] == []
    assert looping.is_look(report["steps"])
    assert 12 < report["steps"] < 200  # a second look was needed, and no limit
    assert report["ess"]["min"] > 40
    assert report["rhat"]["max"] < 1.1
    assert {"TIC0", "TIC1", "psi 1", "omega 1", "phi 2", "potential energy"} <= set(report["ess"])
    assert json.loads((out / "report.json").read_text())["basins"]["explored"].keys() <= set(
        report["basins"]["visited"]
    )


def test_a_run_that_was_stopped_ends_where_one_left_alone_does(run, tmp_path):
    out, report = run
    again = tmp_path / "AA"
    # stopped between two looks, both of which it needs to be sure
    assemble.sample(settings(again, steps=report["steps"] - 1), silent, never)
    resumed = assemble.sample(settings(again, resume=True), silent, never)
    assert resumed["steps"] == report["steps"]
    for name in ("chain-000.dcd", "chain-003.dcd", "log.csv"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_the_warm_up_leaves_no_frame(run):
    out, report = run
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    assert log["step"].min() == 1
    assert len(log) == 4 * report["frames"] == 4 * report["steps"]
    made = {
        name: tested / (1 if name in ("flow", "regrowth", "turning") else MOVES)
        for name, (tested, _) in report["by_kernel"].items()
    }
    assert sum(made.values()) == 4 * report["steps"]


def test_chains_start_in_a_state_each_in_turn():
    words = ("bn",) * 6 + ("an",) * 2 + ("bl",)
    found = Exploration(torch.arange(9.0)[:, None, None].expand(9, 2, 3), words)
    assert list(found.shares) == ["bn", "an", "bl"]
    picks = found.starts(7, torch.Generator().manual_seed(0))[:, 0, 0].int().tolist()
    assert [words[i] for i in picks] == ["bn", "an", "bl", "bn", "an", "bl", "bn"]
    assert len(set(picks[0::3])) == 3  # another walker of the state each time
    assert len(found.starts(2, torch.Generator().manual_seed(0))) == 2


def test_a_state_that_walks_end_in_has_to_be_visited():
    explored = {"bn": 0.9, "al": 0.06, "an": 0.04}
    assert unvisited(explored, {"bn", "al"}) == []
    assert unvisited(explored, {"bn"}) == ["no chain visited the state al, in which 6% of the exploring walks ended"]
    assert unvisited({"": 1.0}, set()) == []  # a molecule without phi and psi


def test_the_words_are_those_of_the_report(run):
    out, report = run
    prepared = prepare(peptide_path("AA"))
    import mdtraj

    frames = mdtraj.load(out / "chain-000.dcd", top=out / "topology.pdb").xyz
    assert set(Exploration.of(prepared, torch.as_tensor(frames)).words) <= set(report["basins"]["visited"])


def test_looks_become_rare(monkeypatch):
    monkeypatch.setattr(looping, "FIRST", 100)
    looks = [step for step in range(1, 3000) if looping.is_look(step)]
    assert looks[:3] == [100, 125, 157]
    assert len(looks) < 18


def test_too_few_chains_are_refused(tmp_path, capsys):
    with pytest.raises(SettingsError, match="four chains or more to compare, got 3"):
        settings(tmp_path / "AA", chains=3)
    words = ["sample", str(peptide_path("AA")), "--out", str(tmp_path / "AA"), "--until", "converged", "--chains", "2"]
    assert execute(words) == 2
    assert "four chains" in capsys.readouterr().err


@pytest.mark.long
def test_the_command_converges_by_the_thresholds_of_the_verdict(tmp_path):
    """Prints the steps, seconds and least ESS that four chains of AA take, with everything as a user has it."""
    words = [sys.executable, "-m", "timewarp.cli", "sample", str(peptide_path("AA")), "--out", str(tmp_path / "AA")]
    subprocess.run([*words, "--chains", "4", "--until", "converged", "--seconds", "900"], check=True)
    report = json.loads((tmp_path / "AA" / "report.json").read_text())
    print({name: report[name] for name in ("steps", "seconds", "verdict", "ess", "rhat")})
    assert report["verdict"] == "converged"
    assert report["ess"]["min"] > 400
    assert report["rhat"]["max"] < 1.01
    assert report["seconds"] < 900
