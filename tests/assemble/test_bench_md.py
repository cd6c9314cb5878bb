"""The MD bench measures both, in processes of their own, and says what it measured."""

import pytest
import torch

from timewarp.assemble import bench_md
from timewarp.assemble.bench_md import DAY, md_speed
from timewarp.state import State


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
    monkeypatch.setattr(bench_md, "_ready", type("Ready", (), {"wait": lambda self: None})(), raising=False)
    assert bench_md._rate(Kernel(), State.at(torch.zeros(1, 1, 3)), 2.0, 0) == pytest.approx(10.0)
    assert pytest.approx(86.4) == DAY  # ns a day at one ps a second
