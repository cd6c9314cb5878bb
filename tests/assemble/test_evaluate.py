"""`timewarp evaluate` from a sequence to its table, on a small peptide with small numbers."""

import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from timewarp import assemble
from timewarp.assemble import peptide as building
from timewarp.assemble import reference
from timewarp.assemble.yardsticks import Recipe
from timewarp.claim import DirectoryRefused
from timewarp.cli import execute
from timewarp.settings import EvaluateSettings

FIGURES = ("e_w2", "t_w2", "tica_w2")


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "timewarp.cli", "evaluate", *map(str, words)],
        capture_output=True, text=True, timeout=120, env=os.environ | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """GG with two seeds, by a quick reference."""
    out = tmp_path_factory.mktemp("evaluated")
    small = Recipe(frames=60, starts=6, lag=0.2, every=0.1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CONFORMERS": 2, "WALKERS": 6, "WARM_UP": 4}.items():
            patch.setattr(building, name, value)
        for name, value in {"WARM_UP": 4, "PILOT": 2}.items():
            patch.setattr(reference, name, value)
        patch.setattr(reference.Reference, "agree", True)  # after the first time
        patch.setattr(import_module("timewarp.assemble.sample"), "START", 4)
        patch.setattr(import_module("timewarp.assemble.evaluate"), "recipe_of", lambda _: small)
        patch.setenv("TIMEWARP_CACHE", str(out / "cache"))
        settings = EvaluateSettings(
            sequences=("GG",), out=out / "run", seconds=0.5, chains=2, budget=80, ot_frames=60, seeds=2
        )
        report = assemble.evaluate(settings, lambda *_: None, lambda: False)
        stopped = EvaluateSettings(
            sequences=("GG", "GA"), out=out / "stopped", seconds=0.5, chains=2, budget=0, ot_frames=60
        )
        calls = []
        assemble.evaluate(stopped, lambda *_: calls.append(1), lambda: (out / "stopped" / "GG.pdb").exists())
    return out, report


def test_each_row_has_the_published_figures_and_their_floors(evaluated):
    out, report = evaluated
    rows = json.loads((out / "run" / "evaluate.json").read_text())
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert row["peptide"] == "GG"
        for name in (*FIGURES, *(f"{n}_proposals" for n in FIGURES), *(f"snis_{n}" for n in FIGURES)):
            assert np.isfinite(row[name])
            assert row[name] >= 0
        assert all(row[f"floor_{name}"] >= 0 for name in FIGURES)
        assert 0 < row["kish_ess"] <= 1
        assert row["energy_evaluations"] <= 80 < row["setup_evaluations"]
        assert row["evaluations_a_proposal"] == 4
        assert {"acceptance", "seconds", "ess", "ess_per_second", "verdict", "rhat", "atoms"} <= set(row)
    assert rows[0]["floor_e_w2"] == rows[1]["floor_e_w2"]  # of one reference, from the cache
    assert rows[0]["e_w2"] != rows[1]["e_w2"]
    assert len(list((out / "cache").glob("GG-*.safetensors"))) == 1
    assert "lowest seed" in report["message"]


def test_a_stopped_evaluation_keeps_no_half_row(evaluated):
    out, _ = evaluated
    assert not (out / "stopped" / "evaluate.json").exists()


def test_rows_that_are_there_stay(evaluated):
    out, _ = evaluated
    table = out / "run" / "evaluate.json"
    before = table.read_bytes()
    same = ("--seconds", 0.5, "--chains", 2, "--budget", 80, "--ot-frames", 60)
    again = command("GG", "--out", out / "run", "--seeds", 2, *same, "--resume")
    assert again.returncode == 0, again.stderr
    assert table.read_bytes() == before
    assert "lowest acceptance: GG" in again.stdout
    assert "60 reference frames" in again.stdout


def test_other_options_and_a_second_start_are_refused(evaluated):
    out, _ = evaluated
    settings = EvaluateSettings(sequences=("GG",), out=out / "run", seconds=0.5, chains=2, budget=90, ot_frames=60)
    with pytest.raises(DirectoryRefused, match="--resume"):
        assemble.evaluate(settings, lambda *_: None, lambda: False)
    resumed = EvaluateSettings(
        sequences=("GG",), out=out / "run", seconds=0.5, chains=2, budget=90, ot_frames=60, resume=True
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
