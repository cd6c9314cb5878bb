"""Crossings of dynamics in equilibrium: counted as they are, and a bound on MD that holds and comes near."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from timewarp.assemble.energy import energy_of
from timewarp.assemble.speedup import crossings as module
from timewarp.assemble.speedup.bound import pairs
from timewarp.assemble.speedup.crossings import CHUNK, EVERY, Crossings, counted, crossings_of, dynamics_of
from timewarp.assemble.speedup.judge import judged
from timewarp.assemble.speedup.methods import MD
from timewarp.assemble.speedup.ranking import ranked
from timewarp.assemble.speedup.table import table
from timewarp.assemble.speedup.target import crossings
from timewarp.assemble.yardstick import Yardstick
from timewarp.energy import Potential
from timewarp.md.system import prepare
from timewarp.resources import peptide_path
from timewarp.state import State
from timewarp.units import kT

from . import toy


@pytest.fixture(scope="module")
def target():
    return toy.target()


def played(target, state, seed=4):
    """What is counted in frames known before, a ps apart; it is over at the last but for two more that are there."""
    frames = torch.as_tensor(toy.positions(np.random.default_rng(seed), state)).unbind(1)
    later = iter([*frames[1:], frames[0], frames[-1]])
    left = iter([False] * (len(frames) - 2) + [True])
    return counted(frames[0], later, target, lambda: next(left))


@pytest.mark.parametrize("frames", [2, CHUNK, CHUNK + 1, CHUNK + 2, 3 * CHUNK + 7])
def test_all_crossings_are_counted_once_wherever_frames_are_cut(target, frames):
    state = toy.jumps(np.random.default_rng(frames), 6, frames, 0.3, 0.2)
    found = played(target, state)
    words = target.words(toy.positions(np.random.default_rng(4), state))
    assert found.picoseconds == 6 * (frames - 1)
    jumps = int((np.diff(state) != 0).sum())
    assert found.turns == jumps
    assert found.entries == {name: crossings(words, name) for name in target.shares} == dict.fromkeys(words.flat, jumps)
    shares = dict.fromkeys(target.shares, 0.0) | {name: float((words == name).mean()) for name in set(words.flat)}
    assert found.shares == pytest.approx(shares, abs=0.5 / frames)  # a frame at a cut is looked at twice


def test_a_replica_between_the_sides_is_remembered_over_a_cut(target):
    """Slow coordinates of any kind, cut in chunks: the same crossings as of the whole."""
    rng = np.random.default_rng(7)
    sides = target.sides
    levels = np.array([sides.low - 0.1, (sides.low + sides.high) / 2, sides.high + 0.1])
    slow = levels[rng.choice(3, p=[0.1, 0.8, 0.1], size=(5, 200))]
    whole, carried, turns = sides.crossings(slow), np.zeros((5, 0)), 0
    for part in np.split(slow, [1, 3, 40, 41, 150], axis=1):
        joined = np.concatenate([carried, part], 1)
        turns += sides.crossings(joined)
        carried = sides.last(joined)
    assert turns == whole > 20


UP, DOWN = 0.002, 0.006  # a frame


def worth(frames):
    """Effective samples of one chain of the two-state process."""
    return frames * (UP + DOWN) / (2 - UP - DOWN)


def bounded(target, seed, length):
    """A stuck MD of one chain of 200 ps, judged with a long dynamics of the same process."""
    rng = np.random.default_rng(seed)
    long = played(target, toy.jumps(rng, 64, length, UP, DOWN), seed)
    known = replace(target, dynamics={"md-tuned": long})
    short = toy.records(rng, np.zeros((2, 100), dtype=int), picoseconds=100.0)
    return judged(short, known, 310.0, method="md-tuned")[0]


def test_long_dynamics_bounds_short_md_by_what_it_is_worth(target):
    rows = [bounded(target, seed, 300) for seed in range(12)]
    true = worth(200.0)
    assert sum(row["dynamics_ess_bound"] < true for row in rows) <= 2  # the limit is one of 95 %
    assert np.median([row["dynamics_ess_bound"] for row in rows]) < 1.6 * true
    for row in rows:
        assert row["ess_bound"] == row["dynamics_ess_bound"]  # no crossing of its own allows far more
        assert row["ess_bound_per_second"] == row["ess_bound"] / row["seconds"]
    (row, *_) = rows
    fast = toy.row(method="sample", ess_per_second=10.0)
    named = ranked([toy.row() | row | {"method": "md-tuned"}, fast])
    assert named[1]["speedup"] == pytest.approx(10.0 / row["ess_bound_per_second"])
    assert named[1]["speedup_at_least"]


def test_the_time_until_md_sees_a_state_is_that_between_its_visits(target):
    """A state that is entered `UP` times a ps is first entered after 1 / UP ps, at 10 ps a second and process."""
    rows = [bounded(target, seed, 300) for seed in range(6)]
    expected = np.median([row["states_seconds_expected"] for row in rows])
    seconds = rows[0]["seconds"] / 200.0 / UP
    assert 0.6 * seconds < expected < seconds
    md = toy.row(method="md-paper", gates=["stuck"], states_seconds=None, states_seconds_expected=50.0)
    (first, second) = ranked([md, toy.row(states_seconds=2.0)])
    assert (second["states_speedup_paper"], second["states_speedup_paper_at_least"]) == (25.0, True)
    assert first["states_speedup_paper"] == 0
    lucky = ranked([md | {"states_seconds": 8.0}, toy.row(states_seconds=2.0)])[1]
    assert (lucky["states_speedup_paper"], lucky["states_speedup_paper_at_least"]) == (4.0, False)


def test_without_dynamics_nothing_changes(target):
    state = np.zeros((2, 100), dtype=int)
    rows = [
        judged(toy.records(np.random.default_rng(1), state, **facts), known, 310.0, method=method)[0]
        for facts, known, method in [
            ({"picoseconds": 100.0}, target, "md-tuned"),
            ({"picoseconds": 100.0}, replace(target, dynamics={"md-tuned": Crossings()}), "md-tuned"),
            ({"picoseconds": 100.0}, replace(target, dynamics={"md-tuned": Crossings(1e9, 0, {}, 0.5)}), "md-paper"),
            ({}, replace(target, dynamics={"md-tuned": Crossings(1e9, 0, {}, 0.5)}), "md-tuned"),
        ]
    ]
    assert all("dynamics_ess_bound" not in row for row in rows)
    assert len({row["ess_bound"] for row in rows[:3]}) == 1


def test_md_that_crosses_as_often_as_dynamics_does_is_told(target):
    rows = []
    for seed in range(4):
        row = bounded(target, seed, 300)
        expected = row["dynamics_crossings"] * row["picoseconds"] / row["dynamics_picoseconds"]
        rows.append(toy.row(f"P{seed}") | row | {"method": "md-tuned", "crossings_as_dynamics": 3})
        assert expected == pytest.approx(200 * 2 * UP * DOWN / (UP + DOWN), rel=0.5)
    text = table(ranked(rows))
    line = next(line for line in text.splitlines() if line.startswith("crossings of the slowest coordinate"))
    assert "md-tuned made 12" in line


def test_crossings_are_compared_at_the_same_interval(target):
    """MD of two chains with frames 0.2 ps apart, which leave a side for one frame now and then."""
    state = np.zeros((2, 100), dtype=int)
    state[0, 7::20] = 1  # five excursions, none at a frame whose number five divides
    state[1, 50:] = 1  # and one crossing that lasts
    known = replace(target, dynamics={"md-tuned": Crossings(1e4, 100, dict.fromkeys(target.shares, 100), 0.5,
                                                            dict(target.shares))})  # fmt: skip
    row = judged(toy.records(np.random.default_rng(1), state, picoseconds=20.0), known, 310.0, method="md-tuned")[0]
    assert (row["crossings"], row["crossings_as_dynamics"]) == (11, 1)


def test_the_basin_that_takes_longest_is_the_one_that_is_waited_for(target):
    """A rare basin and a common one, each entered and left 50 times in 10 ns: the rare one is away for longer."""
    entries, shares = {"an": 100, "bn": 100}, {"an": 0.2, "bn": 0.5}
    known = replace(target, dynamics={"md-tuned": Crossings(1e4, 100, entries, 0.5, shares)})
    state = np.zeros((2, 100), dtype=int)
    row = judged(toy.records(np.random.default_rng(1), state, picoseconds=10.0), known, 310.0, method="md-tuned")[0]
    expected = 0.8 * 1e4 / pairs(100, 3) * row["seconds"] / row["picoseconds"]
    assert row["states_seconds_expected"] == pytest.approx(expected)
    assert expected < 0.8 * 1e4 / 50 * row["seconds"] / row["picoseconds"]  # it is a lower bound


def test_the_dynamics_is_that_of_the_methods():
    prepared = prepare(peptide_path("AA"))
    energy, molecule, _ = energy_of(prepared, 310.0)
    assert isinstance(energy, Potential)
    found = {method: dynamics_of(method, molecule, energy, 310.0) for method in MD}
    assert {name: (k.timestep, k.friction) for name, k in found.items()} == {
        "md-paper": (0.0005, 0.3), "md-2fs": (0.001, 1.0), "md-tuned": (0.002, 1.0)
    }  # fmt: skip
    for method, kernel in found.items():
        assert kernel.steps * kernel.timestep == pytest.approx(EVERY)
        assert (float(kernel.masses.min()) == 3.0) == (method == "md-tuned")


def test_the_dynamics_keeps_its_temperature():
    prepared = prepare(peptide_path("AA"))
    energy, molecule, _ = energy_of(prepared, 310.0)
    assert isinstance(energy, Potential)
    kernel = dynamics_of("md-tuned", molecule, energy, 310.0)
    rng = torch.Generator().manual_seed(0)
    phase = kernel.init(State.at(molecule.reference.float().repeat(32, 1, 1), 3, rng))
    kinetic = []
    for _ in range(5):
        phase, info = kernel.step(phase, rng)
        kinetic.append(info["kinetic"].mean())
    freedoms = 3 * len(molecule.masses)
    found = 2 * float(torch.stack(kinetic[-2:]).mean()) / freedoms
    assert found == pytest.approx(kT(310.0), rel=0.08)


def test_what_was_counted_is_kept(target, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMEWARP_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "REPLICAS", 6)
    prepared = prepare(peptide_path("AA"))
    frames = np.stack([prepared.positions] * 8).astype(np.float32).reshape(2, 4, -1, 3)
    reference = Yardstick(frames, np.zeros((2, 4)), target.tica, {}, {})
    settings = (prepared, 310.0, reference, target, "md-tuned", 0.05)
    first = crossings_of(*settings)
    assert first.picoseconds >= 6
    (path,) = tmp_path.glob("AA-crossings-*.json")
    assert crossings_of(*settings) == first
    path.write_text(path.read_text()[:20])  # cut short
    assert crossings_of(*settings).picoseconds >= 6
    other = replace(reference, energy=np.ones((2, 4)))  # of another reference
    crossings_of(prepared, 310.0, other, target, "md-tuned", 0.05)
    assert len(list(tmp_path.glob("*.json"))) == 2
    crossings_of(*settings[:-1], 0.06, lambda: True)  # nobody waits: half of it is not kept
    assert len(list(tmp_path.glob("*.json"))) == 2
