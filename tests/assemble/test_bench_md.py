"""The MD bench measures both, in processes of their own, and says what it measured."""

import json
from importlib import import_module

import pytest
import torch

from timewarp.assemble import bench_md
from timewarp.assemble.bench_md import DAY, md_speed
from timewarp.cli import execute
from timewarp.state import State

command = import_module("timewarp.assemble.benchmarks.md")


def test_it_measures_both_in_one_run():
    lines = []
    speed = md_speed("GG", seconds=0.2, processes=1, replicas=16, compiled=False, told=lines.append)
    row = speed.row()
    assert (row["peptide"], row["atoms"], row["processes"], row["replicas"]) == ("GG", 17, 1, 16)
    assert (row["step_fs"], row["openmm_step_fs"]) == (pytest.approx(2.0), pytest.approx(4.0))
    assert row["ns_per_day"] > 0
    assert row["openmm_ns_per_day"] > 0
    assert row["ratio"] == pytest.approx(row["ns_per_day"] / row["openmm_ns_per_day"])
    assert [line.split(" ")[1] for line in lines] == ["OpenMM", "batched"]


def test_a_rate_counts_the_steps_of_the_time_they_took(monkeypatch):
    """A clock that advances by 0.1 s a step: ten steps a second, whatever the machine does."""
    now = [0.0]

    class Kernel:
        def init(self, state):
            return state

        def step(self, state, rng):
            now[0] += 0.1
            return state, {}

    monkeypatch.setattr(bench_md.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(bench_md.time, "process_time", lambda: now[0] / 2)
    monkeypatch.setattr(bench_md, "_ready", type("Ready", (), {"wait": lambda self: None})(), raising=False)
    assert bench_md._rate(Kernel(), State.at(torch.zeros(1, 1, 3)), 2.0, torch.Generator()) == (
        pytest.approx(10.0),
        pytest.approx(0.5),
    )
    assert pytest.approx(86.4) == DAY  # ns a day at one ps a second


def test_a_side_that_others_held_up_is_judged_by_its_own_time():
    speed = bench_md.MDSpeed("AA", 23, "cpu", 2, 8, 0.002, 0.004, 300.0, 60.0, share=0.25, openmm_share=1.0)
    assert speed.ratio == pytest.approx(5.0)
    assert speed.ratio_by_processor_time == pytest.approx(20.0)
    assert "a side had 25% of its cores" in command.table([speed.row()])
    assert "busy" not in command.table([bench_md.MDSpeed("AA", 23, "cpu", 2, 8, 0.002, 0.004, 300.0, 60.0).row()])


def test_the_command_leaves_a_row_a_peptide_and_measures_none_twice(tmp_path, capsys, monkeypatch):
    asked = []

    def measured(sequence, seconds, device, processes, replicas, told):
        asked.append((sequence, seconds, device, processes, replicas))
        return bench_md.MDSpeed(sequence, 17, device, 2, replicas, 0.002, 0.004, 300.0, 10.0)

    monkeypatch.setattr(command, "md_speed", measured)
    words = ["bench", "--md", "--batch", "64", "--threads", "2", "--device", "cpu", "--out", str(tmp_path)]
    assert execute([*words, "GG"]) == 0
    assert execute([*words, "GG", "AA", "--resume", "--seconds", "3"]) == 0
    assert asked == [("GG", 10.0, "cpu", 2, 64), ("AA", 3.0, "cpu", 2, 64)]
    rows = json.loads((tmp_path / "md.json").read_text())
    assert [(row["peptide"], row["ratio"]) for row in rows] == [("GG", 30.0), ("AA", 30.0)]
    assert "OpenMM ns/day" in capsys.readouterr().out
    assert execute([*words, "GG", "--energy"]) == 2
    assert "one of --energy and --md" in capsys.readouterr().err
