"""A training run: from shards to a checkpoint, the same however often it was stopped and in how many processes."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.judges import Judge
from timewarp.assemble.pool import Pool, lot
from timewarp.assemble.train import trained
from timewarp.claim import DirectoryRefused
from timewarp.settings import SettingsError
from timewarp.training.checkpoint import Checkpoint, CheckpointError

from .runs import CARTESIAN, COUPLED, FIT, OWN, run_of, state_of


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(out):
    """The rows of the table that training writes, without what the clock says and without lone validations."""
    lines = [line.split(",") for line in (out / "metrics.csv").read_text().splitlines()]
    return [[line[0], *line[2:]] for line in lines if line[3]]


@pytest.mark.parametrize("model", [COUPLED, CARTESIAN], ids=["internal", "cartesian"])
def test_a_resumed_run_is_the_same_run_bit_for_bit(shards, data, tmp_path, model):
    """Also when a shard arrives between, which the run takes up at its next validation and not before."""
    late = shards / "late.safetensors"

    def arrive():  # asked before each step
        nonlocal asked
        asked += 1
        if asked == 5:
            shutil.copy(late, data)
        return False

    asked = 0
    whole = run_of(data, tmp_path / "whole", model, objective=OWN, own_from=3)
    trained(replace(whole, steps=10), stop=arrive)
    (data / late.name).unlink()
    parts = replace(whole, out=tmp_path / "parts")
    trained(replace(parts, steps=4))
    shutil.copy(late, data)
    trained(replace(parts, steps=10))
    assert same(state_of(whole.out), state_of(parts.out))
    assert rows(whole.out) == rows(parts.out)
    assert Checkpoint.load(whole.out / "tiny").card["data"] == {"peptides": ["GG", "copy", "late"], "held_out": ["AG"]}
    assert int(state_of(whole.out)["skipped"]) == 0


def test_the_checkpoint_is_the_flow_and_its_table_can_be_plotted(data, tmp_path):
    told = []
    report = trained(run_of(data, tmp_path / "run", steps=6), lambda *row: told.append(row))
    assert report["message"].startswith("6 steps in ")
    assert told[-1][0] == 1.0
    checkpoint = Checkpoint.load(tmp_path / "run" / "tiny")
    assert (checkpoint.card["steps"], checkpoint.card["metrics"]["step"]) == (6, 6)
    assert 0 <= checkpoint.card["metrics"]["validation"] <= 1
    flow, state = load_flow(checkpoint), state_of(tmp_path / "run")
    assert all(torch.equal(value, state[f"averaged.{key}"]) for key, value in flow.state_dict().items())
    judge = Judge.read(data / "AG.safetensors")
    assert bound(flow, judge.peptide)(judge.frames[:2]).log_prob is not None
    assert (tmp_path / "run" / "metrics.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "run" / "metrics.csv").read_text().startswith("step,seconds,peptides,loss,torsion,rest,")


def test_training_lowers_the_loss(data, tmp_path):
    run = run_of(data, tmp_path / "run", steps=60, validate=1000)
    trained(replace(run, fit=replace(FIT, report=20)))
    loss = [float(row[2]) for row in rows(run.out)[1:]]
    assert loss[-1] < loss[0] - 1.0


def test_it_stops_on_its_time_budget(data, tmp_path):
    began = time.monotonic()
    report = trained(run_of(data, tmp_path / "run", seconds=1.0))
    assert 1 <= report["steps"] < 10**5
    assert time.monotonic() - began < 20
    assert int(state_of(tmp_path / "run")["step"]) == report["steps"]


def test_what_is_held_out_is_a_fixed_tenth(tmp_path):
    names = [f"P{i}" for i in range(400)]
    for name in names:
        (tmp_path / f"{name}.safetensors").touch()
    held = [n for n in names if lot(n, 3) < 0.1]
    assert 20 < len(held) < 60
    at_once, in_two = (Pool(tmp_path, Path, (), seed=3) for _ in range(2))
    assert len(at_once.waiting()) == 400
    at_once.take_up(at_once.waiting())
    in_two.take_up(in_two.waiting()[:50])
    in_two.take_up(in_two.waiting())
    assert sorted(at_once.held) == sorted(in_two.held) == sorted(held)
    assert not at_once.waiting()
    assert not at_once.trained.keys() & set(held)
    other = Pool(tmp_path, Path, (), seed=4)
    other.take_up(other.waiting())
    assert sorted(other.held) != sorted(held)


def test_of_few_peptides_one_is_held_out_and_named_ones_are_taken_as_named(tmp_path):
    names = [n for n in (f"P{i}" for i in range(40)) if lot(n, 0) > 0.1][:3]
    for name in names:
        (tmp_path / f"{name}.safetensors").touch()
    few = Pool(tmp_path, Path, (), seed=0)
    few.take_up(few.waiting())
    assert few.held == [min(names, key=lambda n: lot(n, 0))]
    named = Pool(tmp_path, Path, (names[1], "not-there"), seed=0)
    named.take_up(named.waiting())
    assert (list(named.trained), named.measurable()) == ([names[0], names[2]], [names[1]])


def test_what_cannot_be_is_refused(data, tmp_path):
    run = run_of(data, tmp_path / "run", steps=2)
    with pytest.raises(SettingsError, match=r"expected shards .* found none to train on; make some with timewarp data"):
        trained(replace(run, data=tmp_path / "nowhere", out=tmp_path / "none"))
    trained(run)
    with pytest.raises(DirectoryRefused, match="holds a run; continue it with --resume"):
        trained(run, resume=False)
    with pytest.raises(DirectoryRefused, match="was started with seed 0, not 1; resume with the same options"):
        trained(replace(run, seed=1))
    with pytest.raises(DirectoryRefused, match="was started with chart internal, not cartesian"):
        trained(replace(run, model=CARTESIAN))
    with pytest.raises(DirectoryRefused, match=r"is not empty and holds no run .there is AG.safetensors"):
        trained(replace(run, out=data))
    good = Checkpoint.load(tmp_path / "run" / "tiny")
    with pytest.raises(CheckpointError, match="expected a checkpoint of kind internal or cartesian, found toy"):
        load_flow(replace(good, card={**good.card, "kind": "toy"}))
    with pytest.raises(CheckpointError, match="expected the config and weights of an internal flow"):
        load_flow(replace(good, card={**good.card, "config": {"width": 16}}))


def test_an_older_state_without_a_record_of_its_shards_goes_on(data, tmp_path):
    run = run_of(data, tmp_path / "run", steps=2)
    trained(run)
    from safetensors.torch import save_file

    save_file(state_of(run.out), run.out / "state.safetensors")
    assert trained(replace(run, steps=4))["steps"] == 4
    with safe_open(run.out / "state.safetensors", "pt") as file:
        assert '"trained": ["GG", "copy"]' in file.metadata()["run"]
