"""`timewarp evaluate` from a sequence to its table, on a small peptide with small numbers."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from importlib import import_module

import numpy as np
import pytest

from timewarp import assemble
from timewarp.assemble import exploration, reference
from timewarp.assemble import peptide as building
from timewarp.assemble.evaluation import figures
from timewarp.assemble.yardsticks import Recipe
from timewarp.claim import DirectoryRefused
from timewarp.cli import execute
from timewarp.settings import EvaluateSettings, SampleSettings

FIGURES = ("e_w2", "t_w2", "tica_w2")


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "timewarp.cli", "evaluate", *map(str, words)],
        capture_output=True, text=True, timeout=120, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, Recipe()),
        ({"reference_seconds": 240.0}, Recipe(seconds=240.0, lag=5.0, starts=64)),
        ({"reference_seconds": 900.0, "reference_ns": 2.0}, Recipe(seconds=900.0, nanoseconds=2.0)),
        ({"ot_frames": 200}, Recipe(frames=200, lag=2.0, starts=32)),
    ],
)
def test_who_waits_less_for_a_reference_gets_slow_coordinates_from_less_dynamics(asked, expected, tmp_path):
    settings = EvaluateSettings(sequences=("GG",), out=tmp_path, seconds=1.0, **asked)
    assert import_module("timewarp.assemble.evaluate").recipe_of(settings) == expected


@contextmanager
def quick(out):
    """Few walkers, a quick reference."""
    small = Recipe(frames=60, starts=6, lag=0.2, every=0.1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}.items():
            patch.setattr(building, name, value)
        for name, value in {"WARM_UP": 4, "PILOT": 2}.items():
            patch.setattr(reference, name, value)
        patch.setattr(reference.Reference, "agree", True)  # after the first time
        for name, value in {"WALKERS": 6, "STEPS": 4}.items():
            patch.setattr(exploration, name, value)
        evaluate = import_module("timewarp.assemble.evaluate")
        patch.setattr(evaluate, "recipe_of", lambda _: small)
        patch.setattr(evaluate, "SampleSettings", partial(SampleSettings, warm_up=4))
        patch.setenv("TIMEWARP_CACHE", str(out / "cache"))
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """GG by a quick reference, stopped before its second seed."""
    out = tmp_path_factory.mktemp("evaluated")
    with quick(out):
        settings = EvaluateSettings(
            sequences=("GG",), out=out / "run", seconds=0.3, chains=2, budget=80, ot_frames=60, seeds=2
        )
        # asked to stop when the first row is there
        report = assemble.evaluate(settings, lambda *_: None, (out / "run" / "evaluate.json").exists)
    return out, report


def test_each_row_has_the_published_figures_and_their_floors(evaluated):
    out, report = evaluated
    rows = json.loads((out / "run" / "evaluate.json").read_text())
    assert [row["seed"] for row in rows] == [0]
    for row in rows:
        assert row["peptide"] == "GG"
        for name in (*FIGURES, *(f"{n}_proposals" for n in FIGURES), *(f"snis_{n}" for n in FIGURES)):
            assert np.isfinite(row[name])
            assert row[name] >= 0
        assert all(row[f"floor_{name}"] >= 0 for name in FIGURES)
        assert 0 < row["kish_ess"] <= 1
        assert row["proposal_milliseconds"] > 0
        assert sum(row[f"proposal_{part}"] for part in ("flow", "chart", "energy")) == pytest.approx(1.0)
        assert row["energy_evaluations"] <= 80 < row["setup_evaluations"]
        assert (
            9 <= row["evaluations_a_proposal"] < 11
        )  # three to relax, three for each of two particles; some take more
        assert {"acceptance", "seconds", "ess", "ess_per_second", "verdict", "rhat", "atoms"} <= set(row)
    assert len(list((out / "cache").glob("GG-*.safetensors"))) == 1
    assert "1 peptides, 1 seed" in report["message"]


def test_rows_that_are_there_stay(evaluated):
    out, _ = evaluated
    table = out / "run" / "evaluate.json"
    before = table.read_bytes()
    same = ("--seconds", 0.3, "--chains", 2, "--budget", 80, "--ot-frames", 60)
    again = command("GG", "--out", out / "run", *same, "--resume")
    assert again.returncode == 0, again.stderr
    assert table.read_bytes() == before
    assert "lowest acceptance: GG" in again.stdout
    assert "60 reference frames" in again.stdout


def test_an_adapted_flow_is_measured_as_it_samples(tmp_path):
    with quick(tmp_path):
        settings = EvaluateSettings(
            sequences=("GG",), out=tmp_path / "run", seconds=0.3, chains=2, budget=80, ot_frames=60, adapt=0.01,
            proposals=False,
        )  # fmt: skip
        assemble.evaluate(settings, lambda *_: None, lambda: False)
    (row,) = json.loads((tmp_path / "run" / "evaluate.json").read_text())
    assert (tmp_path / "run" / "GG-0" / "adapted.safetensors").exists()
    assert np.isfinite([row[name] for name in (*FIGURES, *(f"snis_{n}" for n in FIGURES))]).all()
    assert not any(name.endswith("_proposals") for name in row)
    assert row["setup_evaluations"] == 0  # the chart is that of the adapted flow
    assert row["energy_evaluations"] <= 80


def test_other_options_and_a_second_start_are_refused(evaluated):
    out, _ = evaluated
    settings = EvaluateSettings(sequences=("GG",), out=out / "run", seconds=0.3, chains=2, budget=90, ot_frames=60)
    with pytest.raises(DirectoryRefused, match="--resume"):
        assemble.evaluate(settings, lambda *_: None, lambda: False)
    resumed = EvaluateSettings(
        sequences=("GG",), out=out / "run", seconds=0.3, chains=2, budget=90, ot_frames=60, resume=True
    )
    with pytest.raises(DirectoryRefused, match="budget 80, not 90"):
        assemble.evaluate(resumed, lambda *_: None, lambda: False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("GG", "QX1"), "QX1"),
        (("GG", "--budget", "3"), "--budget: expected 10 or more"),
        (("GG", "--reference-ns", "-1"), "--reference-ns: expected a positive number"),
        (("GG", "--ot-frames", "5"), "--ot-frames: expected 50 or more"),
        (("GG", "--adapt", "0"), "--adapt: expected a positive number of minutes"),
        (("GG", "--reference-seconds", "0"), "--reference-seconds: expected more than 0"),
        (("GG", "--seeds", "0"), "--seeds: expected 1 or more"),
        (("GG", "--checkpoint", "nowhere"), "no checkpoint"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_made(tmp_path, capsys, words, said):
    out = tmp_path / "out"
    assert execute(["evaluate", *words, "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert not out.exists()


def test_the_table_has_medians_their_spread_and_what_failed():
    rows = [
        {"sequence": name, "seed": seed, "acceptance": rate + 0.01 * seed, "e_w2": 0.2 + seed, "reference_agrees": ok,
         "evaluations_a_proposal": 4.0, "setup_evaluations": 100, "tica_w2": None}
        for name, rate, ok in (("AA", 0.5, True), ("WW", 0.1, False), ("GG", 0.7, True))
        for seed in (0, 1, 2)
    ]  # fmt: skip
    lines = figures(rows, {"PP": "no ring"}, 10_000, 10_000).splitlines()
    cells = {line[:14].strip(): line[14:].split() for line in lines}
    assert cells["peptide"] == ["acceptance", "E-W2"]
    assert cells["WW"] == ["11.0%", "1.200"]
    assert cells["median"] == ["51.0%", "1.200"]
    assert cells["lowest seed"] == ["50.0%", "0.200"]
    assert cells["highest seed"] == ["52.0%", "2.200"]
    text = "\n".join(lines)
    assert "3 peptides, 3 seeds; lowest acceptance: WW 11.0%, AA" in text
    assert "do not agree yet: WW" in text
    assert "failed: PP: no ring" in text


def test_runs_too_short_for_a_proposal_have_a_table_too():
    row = {"sequence": "WQ", "seed": 1, "acceptance": None, "kish_ess": 0.4, "reference_agrees": None}
    assert "1 peptides, 1 seed" in figures([row], {}, 0, 50)
    other = row | {"sequence": "AA", "acceptance": 0.8}
    text = figures([row, other], {}, 0, 50)
    assert "2 peptides, 1 seed; lowest acceptance: AA 80.0%" in text
    assert "WQ                      -    0.400" in text
