"""`timewarp bench` from a sequence to its table, in processes of its own, against a quick reference."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module

import mdtraj
import numpy as np
import pytest
import torch

from timewarp.analysis.features import tica_features
from timewarp.analysis.tica import fit_tica
from timewarp.assemble import peptide as building
from timewarp.assemble import yardsticks
from timewarp.assemble.energy import energy_of
from timewarp.assemble.speedup import methods, processes
from timewarp.assemble.speedup.job import Job
from timewarp.assemble.speedup.preparation import Named, recipe
from timewarp.assemble.speedup.processes import Halted, MethodFailed, together
from timewarp.assemble.speedup.record import Record
from timewarp.assemble.yardstick import Yardstick
from timewarp.claim import DirectoryRefused
from timewarp.cli import execute
from timewarp.md import baseline
from timewarp.md.system import prepare, prepare_sequence
from timewarp.resources import checkpoint_path, peptide_path
from timewarp.settings import Device, RaceSettings
from timewarp.units import kT

SMALL = ("--reference-frames", "60", "--dynamics-seconds", "0.5", "--threads", "1", "--seconds", "1", "--device", "cpu")


def rough(prepared, temperature, recipe, progress, stop, device):
    """In place of parallel tempering: a few ps of hot MD. What the numbers are worth is not looked at here."""
    found = baseline.frames(prepared, "tuned", "CPU", 600.0, 0.04, 1)
    made = [next(found) for _ in range(2 * recipe.frames)]
    positions = np.stack([f.positions for f in made]).reshape(2, recipe.frames, -1, 3)
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    tica = fit_tica(tica_features(topology, positions), lag=3)
    energy = np.array([f.potential for f in made]).reshape(2, -1)
    return Yardstick(positions, energy, tica, {}, {"method": "rough", "ess": 10.0})


def command(*words, cache):
    return subprocess.run(
        [sys.executable, "-m", "timewarp.cli", "bench", *map(str, words)],
        capture_output=True, text=True, timeout=300, env=os.environ | {"TIMEWARP_CACHE": str(cache)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """GG, by MD and by replica exchange; first stopped behind the MD, then resumed."""
    out = tmp_path_factory.mktemp("raced")
    race = import_module("timewarp.assemble.speedup.race")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMEWARP_CACHE", str(out / "cache"))
        patch.setattr(yardsticks, "_tempered", rough)
        (out / "run").mkdir()
        peptide = Named.of("GG", out)
        yardsticks.yardstick(
            peptide.prepared, 310.0, recipe(60, 1800.0), lambda *_: None, lambda: False
        )  # for all processes
        settings = RaceSettings(
            peptides=("GG",), out=out / "run", methods=("md-tuned", "exchange"), seconds=1.0, cores=1,
            reference_frames=60, dynamics_seconds=0.5, device=Device.CPU,
        )  # fmt: skip
        stop = (out / "run" / "bench.json").exists
        race.race(settings, lambda *_: None, stop)
    stopped = json.loads((out / "run" / "bench.json").read_text())
    words = ("GG", "--out", out / "run", *SMALL, "--method", "md-tuned", "--method", "exchange", "--resume")
    return out, stopped, command(*words, cache=out / "cache")


def test_a_stopped_run_keeps_its_rows_and_resuming_adds_the_others(raced):
    out, stopped, again = raced
    assert again.returncode == 0, again.stderr
    rows = json.loads((out / "run" / "bench.json").read_text())
    assert [row["method"] for row in stopped] == ["md-tuned"]
    assert [row["method"] for row in rows] == ["md-tuned", "exchange"]
    assert rows[0] == stopped[0]
    asked = {"peptide", "method", "ess", "seconds", "ess_per_second", "speedup", "acceptance", "missed_basins"}
    for row in rows:
        assert asked | {"setup_seconds", "gates", "machine", "load", "states_seconds", "rhat"} <= set(row)
        assert row["seconds"] > row["setup_seconds"] > 0
        assert row["seconds"] >= row["setup_seconds"] + 1
    assert rows[0]["picoseconds"] == pytest.approx(0.2 * rows[0]["frames"])
    assert rows[0]["dynamics_picoseconds"] > rows[0]["picoseconds"]  # of MD, and of MD alone
    assert rows[0]["ess_bound"] <= rows[0]["dynamics_ess_bound"]
    assert "dynamics_picoseconds" not in rows[1]
    assert "md-tuned made" in again.stdout
    assert "md-tuned" in again.stdout
    assert "GG, exchange: " in again.stderr
    assert "2 of 2 done, 0 s left" in again.stderr
    lines = (out / "run" / "progress.log").read_text().splitlines()
    assert [line.split(": ")[0].split(" ", 1)[1] for line in lines] == ["GG", "GG, md-tuned", "GG", "GG, exchange"]
    assert "GG, 17 atoms" in again.stdout
    assert (out / "run" / "states.png").exists()
    assert not (out / "run" / "work").exists()


def test_other_options_are_refused(raced, capsys):
    out, *_ = raced
    words = ["bench", "GG", "--out", str(out / "run"), *SMALL, "--seed", "7", "--resume"]
    assert execute(words) == 2
    assert "seed 0, not 7" in capsys.readouterr().err
    with pytest.raises(DirectoryRefused, match="--resume"):
        import_module("timewarp.assemble").race(
            RaceSettings(peptides=("GG",), out=out / "run"), lambda *_: None, lambda: False
        )


def job(tmp_path, method, seconds, number=0):
    return Job(
        pdb=str(peptide_path("AA")), method=method, record=str(tmp_path / f"{number}.safetensors"), seconds=seconds,
        seed=0, platform="CPU", temperature=310.0, chains=2, checkpoint="2aa", device="cpu", began=time.time(),
        parent=os.getpid(),
    )  # fmt: skip


def test_a_method_is_started_as_a_user_would_start_it(tmp_path, monkeypatch):
    """dask has its workers give freed memory back at once, which costs torch half of its speed, and no user's run."""
    popen, asked = subprocess.Popen, []

    def noted(command, **how):
        asked.append(how["env"])
        return popen([sys.executable, "-c", ""])

    monkeypatch.setattr(subprocess, "Popen", noted)
    for name, value in {"MALLOC_TRIM_THRESHOLD_": "65536", "TIMEWARP_CACHE": "here", "OMP_NUM_THREADS": "7"}.items():
        monkeypatch.setenv(name, value)
    assert processes._started(job(tmp_path, "sample", 1.0)).wait() == 0
    (environment,) = asked
    assert "MALLOC_TRIM_THRESHOLD_" not in environment
    assert environment["TIMEWARP_CACHE"] == "here"
    assert {environment[name] for name in processes.THREADS} == {"1"}


def test_when_asked_to_stop_no_process_is_left(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def kept(*args, **named):
        started.append(popen(*args, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", kept)
    with pytest.raises(Halted):
        together([job(tmp_path, "md-tuned", 600.0, k) for k in range(2)], lambda: len(started) == 2, lambda _: None)
    assert [process.poll() is not None for process in started] == [True, True]


def test_a_method_that_fails_says_why(tmp_path):
    with pytest.raises(MethodFailed, match="KeyError: 'guess'"):
        together([job(tmp_path, "guess", 1.0)], lambda: False, lambda _: None)


@pytest.mark.parametrize(("method", "chains"), [("batched-md", 5), ("tempering", 2), ("sample:2aa", 2)])
def test_methods_on_the_batched_energy_leave_frames_in_order(tmp_path, monkeypatch, method, chains):
    for name, value in {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}.items():
        monkeypatch.setattr(building, name, value)
    for name, value in {"WARM_UP": 4, "PILOT": 2}.items():
        monkeypatch.setattr(import_module("timewarp.assemble.reference"), name, value)
    for name, value in {"STEPS": 4, "WALKERS": 4}.items():
        monkeypatch.setattr(import_module("timewarp.assemble.exploration"), name, value)
    for name, value in {"START": 4, "REPLICAS": {"cpu": 5}, "LADDERS": {"cpu": 2}}.items():
        monkeypatch.setattr(methods, name, value)
    asked = replace(job(tmp_path, method, 0.2), parent=os.getppid(), checkpoint=str(checkpoint_path("2aa")))
    record = methods.METHODS[methods.kind(method)](asked)
    frames = len(record.seconds)
    assert record.positions.shape == (chains, frames, 23, 3)
    assert record.energy.shape == (chains, frames)
    assert frames > 0
    assert 0 < record.setup < record.seconds[0] <= record.seconds[-1] <= record.end
    assert (np.diff(record.seconds) >= 0).all()
    assert record.end > record.setup + 0.2
    energy, _, _ = energy_of(prepare(peptide_path("AA")), 310.0)
    found = energy(torch.as_tensor(record.positions[0])).double().numpy() * kT(310.0)
    np.testing.assert_allclose(record.energy[0], found, atol=0.1)


def test_a_record_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 3)).astype(np.float32)
    made = Record(x, rng.standard_normal((2, 3)), np.arange(3.0), 0.5, 3.0, {"acceptance": 0.25})
    made.write(tmp_path / "a.safetensors")
    found = Record.read(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found.positions, made.positions)
    np.testing.assert_array_equal(found.energy, made.energy)
    np.testing.assert_array_equal(found.seconds, made.seconds)
    assert (found.setup, found.end, found.facts) == (0.5, 3.0, {"acceptance": 0.25})


def test_the_baselines_integrate_the_potential_that_is_sampled():
    prepared = prepare(peptide_path("AA"))
    for protocol, step, stride in (("paper", 0.0005, 4), ("2fs", 0.002, 1), ("tuned", 0.004, 1)):
        assert baseline.INTEGRATIONS[protocol].step == step
        frame = next(baseline.frames(prepared, protocol, "Reference", 310.0, 0.002, 1))
        assert frame.picoseconds == pytest.approx(step * stride)
        context = baseline.context_on(prepared.system, "Reference")
        context.setPositions(frame.positions.astype(float))
        assert frame.potential == pytest.approx(context.getState(energy=True).getPotentialEnergy()._value, abs=0.1)
    rigid = baseline.modified(prepared, baseline.INTEGRATIONS["2fs"])
    assert rigid.getNumConstraints() == sum(a.element.symbol == "H" for a in prepared.topology.atoms())
    assert rigid.getParticleMass(1)._value == pytest.approx(1.008, abs=0.001)


def test_replica_exchange_gives_frames_of_the_coldest_replica():
    prepared = prepare_sequence("GG")
    frame = next(baseline.exchange(prepared, "CPU", 310.0, 1))
    context = baseline.context_on(prepared.system, "Reference")
    context.setPositions(frame.positions.astype(float))
    assert frame.potential == pytest.approx(context.getState(energy=True).getPotentialEnergy()._value, abs=0.1)
    heats = baseline.ladder(310.0, 600.0, 17)
    assert (heats[0], heats[-1]) == (pytest.approx(310), pytest.approx(600))
    assert len(baseline.ladder(310.0, 600.0, 170)) > len(heats)
    assert baseline.ladder(310.0, 300.0, 17) == [310.0]
