"""The benchmark of the energy: rates in turns, rows that say what they should, and what is left after an interrupt."""

import json
import os
import subprocess
import sys

import pytest

from timewarp.assemble.benchmarks import energy
from timewarp.assemble.benchmarks.figure import exponents
from timewarp.assemble.benchmarks.rates import Interrupted, fastest, rates, ratio
from timewarp.cli import execute
from timewarp.settings import BenchSettings, Device

ROW = {
    "peptide", "atoms", "device", "dtype", "mode", "threads", "batch", "configurations_per_second",
    "openmm_configurations_per_second", "openmm_way", "ratio", "gradient_configurations_per_second",
    "openmm_gradient_configurations_per_second", "openmm_gradient_way", "gradient_ratio", "max_energy_error",
    "max_force_error", "first_call_seconds",
}  # fmt: skip


def test_turns_alternate_and_the_first_call_is_not_counted():
    turns = []

    def way(name, count):
        def work():
            turns.append(name)
            return count

        return work

    found = rates({"a": way("a", 10), "b": way("b", 1)}, rounds=3, seconds=0.0, stop=lambda: False)
    assert turns == ["a", "b"] * 4
    assert [len(each) for each in found.values()] == [3, 3]


def test_a_rate_is_configurations_over_seconds(monkeypatch):
    clock = iter(range(100))  # each look at the clock is a second later
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    found = rates({"a": lambda: 6, "b": lambda: 3}, rounds=2, seconds=2.0, stop=lambda: False)
    assert found == {"a": [6.0, 6.0], "b": [3.0, 3.0]}
    assert fastest(found) == "a"
    assert ratio(found["a"], found["b"]) == 2.0


def test_the_ratio_is_taken_within_rounds():
    # a machine that is three times as slow in the second round is so for both
    assert ratio([30.0, 10.0, 30.0], [3.0, 1.0, 3.0]) == 10.0


def test_a_stop_is_heard_between_turns():
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        rates({"a": lambda: 1}, rounds=9, seconds=0.0, stop=lambda: next(asked))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_exponents_are_those_of_power_laws(power):
    rates_ = {atoms: 1e6 / atoms**power for atoms in (10, 20, 80)}
    rows = [
        {"atoms": atoms, "dtype": "float32", "mode": "eager"}
        | dict.fromkeys(("configurations_per_second", "gradient_configurations_per_second"), rate)
        for atoms, rate in rates_.items()
    ]
    curve = {"atoms": 10, "gradient": False, "batches": [1, 64, 256, 1024]}
    curve["seconds"] = [1.0] + [
        batch ** (power - 1) for batch in (64, 256, 1024)
    ]  # a call of one is not like the others
    found = exponents(rows, [curve])
    assert found["cost of energy: atoms to the power"] == pytest.approx(power)
    assert found["cost of energy and forces: atoms to the power"] == pytest.approx(power)
    assert found["cost of energy: batch size to the power"] == pytest.approx(power)
    assert "cost of energy and forces: batch size to the power" not in found


def test_the_command_leaves_rows_a_table_and_a_figure_and_goes_on(tmp_path):
    out = tmp_path / "bench"
    none = {"CXX": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"}  # works without a compiler
    quick = [
        "--out",
        str(out),
        "--rounds",
        "1",
        "--slice",
        "0.01",
        "--batch",
        "32",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    said = []
    for sequences in (["GG"], ["GG", "AG", "--resume"]):
        done = subprocess.run(
            [sys.executable, "-m", "timewarp.cli", "bench", "--energy", *sequences, *quick],
            env=os.environ | none, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
        rows = json.loads((out / "energy.json").read_text())
        if len(said) == 1:
            first = rows
    assert rows[: len(first)] == first  # measured once
    assert [(row["peptide"], row["atoms"]) for row in rows] == 2 * [("GG", 17)] + 2 * [("AG", 20)]
    assert [(row["dtype"], row["mode"]) for row in rows] == 2 * [("float32", "eager"), ("float64", "eager")]
    for row in rows:
        assert row.keys() == ROW
        for kind in ("", "gradient_"):
            mine, theirs = row[f"{kind}configurations_per_second"], row[f"openmm_{kind}configurations_per_second"]
            assert row[f"{kind}ratio"] == pytest.approx(mine / theirs)  # one round
            assert row[f"openmm_{kind}way"].split(",")[0] in ("Reference", "CPU", "OpenCL", "CUDA")
        single = row["dtype"] == "float32"
        assert row["max_energy_error"] < (1e-3 if single else 1e-8)
        assert row["max_force_error"] < (5e-2 if single else 1e-8)
    assert "AG" in said[1]
    assert "cost of energy: atoms to the power" in said[1]
    assert "both sides on 1 core" in said[1]
    assert (out / "cost.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((out / "cost.json").read_text())["exponents"]


def test_what_was_measured_before_an_interrupt_is_kept(tmp_path, monkeypatch):
    left = [{"peptide": "GG", "atoms": 17}]
    monkeypatch.setattr(energy, "draw", lambda *parts: None)
    monkeypatch.setattr(energy, "exponents", lambda *parts: {})
    monkeypatch.setattr(energy, "_table", lambda *parts: "")

    def peptide(name, *parts):
        if name == "AG":
            raise Interrupted
        return left, []

    monkeypatch.setattr(energy, "_peptide", peptide)
    settings = BenchSettings(out=tmp_path / "o", energy=True, sequences=("GG", "AG", "GA"), device=Device.CPU)
    report = energy.bench_energy(settings, lambda share, text: None, lambda: False)
    assert report["rows"] == json.loads((tmp_path / "o" / "energy.json").read_text()) == left


def test_what_to_measure_has_to_be_said(tmp_path, capsys):
    assert execute(["bench", "--energy", "--rounds", "0", "--out", str(tmp_path / "o")]) == 2
    assert "--rounds: expected 1 or more, got 0" in capsys.readouterr().err
