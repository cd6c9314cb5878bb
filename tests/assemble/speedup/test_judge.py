"""Chains of a known law get the effective samples that they are worth, and chains that are stuck get none."""

from dataclasses import replace

import numpy as np
import pytest

from timewarp.assemble.speedup.bound import most_effective_samples
from timewarp.assemble.speedup.crossings import Crossings
from timewarp.assemble.speedup.judge import at_most, autocorrelation, judged, published_ess, until_all
from timewarp.assemble.speedup.ranking import ranked
from timewarp.assemble.speedup.record import Record
from timewarp.assemble.speedup.table import table
from timewarp.assemble.speedup.target import Sides, crossings
from timewarp.units import kT

from . import toy

FLIP = 0.1
TIME = (1 + (1 - 2 * FLIP)) / (1 - (1 - 2 * FLIP))  # frames for an effective one: 9


@pytest.fixture(scope="module")
def target():
    return toy.target()


def judge(target, state, seed=3, **facts):
    rng = np.random.default_rng(seed)
    return judged(toy.records(rng, state, **facts), target, 310.0)


def test_a_markov_chain_is_worth_what_its_autocorrelation_says(target):
    state = toy.jumps(np.random.default_rng(2), 4, 2000, FLIP, FLIP)
    row, curves = judge(target, state, acceptance=0.25)
    kept = 0.9 * state.size
    assert row["gates"] == []
    assert row["missed_basins"] == []
    assert row["ess"] == pytest.approx(kept / TIME, rel=0.2)
    assert row["ess_per_second"] == pytest.approx(row["ess"] / 10)
    assert row["ess_per_second_sampling"] == pytest.approx(row["ess"] / 8)
    assert row["published_ess"] == pytest.approx(kept / TIME, rel=0.2)
    assert row["crossings"] == pytest.approx(FLIP * state.size, rel=0.15)
    assert row["ess_bound"] == pytest.approx(row["ess"])
    assert (row["acceptance"], row["chains"], row["processes"]) == (0.25, 4, 2)
    assert row["states_seconds"] < 2.1
    seconds, value = (np.array(curves["autocorrelation"][name]) for name in ("seconds", "value"))
    step = 8.0 / 2000
    early = seconds < 6 * step
    np.testing.assert_allclose(value[early], (1 - 2 * FLIP) ** (seconds[early] / step), atol=0.06)


def test_a_chain_that_is_stuck_wins_nothing(target):
    free, _ = judge(target, toy.jumps(np.random.default_rng(2), 4, 800, FLIP, FLIP))
    stuck, _ = judge(target, np.zeros((4, 800), dtype=int))
    assert stuck["ess"] > free["ess"]  # its noise mixes at once
    assert len(stuck["missed_basins"]) == 1
    assert any("missed" in reason for reason in stuck["gates"])
    assert stuck["states_seconds"] is None
    assert stuck["crossings"] == 0
    assert stuck["ess_bound"] < 10 < 100 * stuck["ess_bound"] < stuck["ess"]
    head = {"peptide": "AA", "atoms": 23, "machine": "abacus", "load": 1.0, "budget": 10.0}
    rows = ranked([head | free | {"method": "md-tuned"}, head | stuck | {"method": "sample"}])
    assert rows[0]["speedup"] == 1
    assert (rows[1]["speedup"], rows[1]["states_speedup"]) == (0, 0)
    line = next(line for line in table(rows).splitlines() if line.startswith("  sample"))
    assert f"({stuck['ess_per_second']:.3g})" in line
    assert "basin missed" in line


def test_chains_stuck_in_different_basins_fail_by_r_hat(target):
    state = np.repeat([[0], [1], [0], [1]], 500, axis=1)
    row, _ = judge(target, state)
    assert row["missed_basins"] == []
    assert any(reason.startswith("R-hat") for reason in row["gates"])


def test_wrong_populations_fail_though_all_else_is_right():
    state = toy.jumps(np.random.default_rng(2), 4, 2000, FLIP, FLIP)
    row, _ = judge(toy.target(share=0.2), state)
    assert [reason.split()[0] for reason in row["gates"]] == ["population"]
    assert row["population_gap"] > 10


def test_free_energies_of_basins_are_those_of_the_chains_and_of_the_reference():
    """F = -kT ln of the ratio of populations; errors cover the gap of the same law, and not that of another."""
    state = toy.jumps(np.random.default_rng(2), 4, 4000, 0.06, 0.14)  # 0.3 in the second conformer
    same, other = (judged(toy.records(np.random.default_rng(3), state), toy.target(share), 310.0)[0]
                   for share in (0.3, 0.4))  # fmt: skip
    kept = state[:, 400:]
    (part,), (off,) = same["free_energies"], other["free_energies"]
    assert part["free_energy"] == pytest.approx(kT(310.0) * np.log((1 - kept.mean()) / kept.mean()), abs=1e-6)
    assert part["reference"] == pytest.approx(kT(310.0) * np.log(0.7 / 0.3), abs=0.15)
    effective = kept.size * (1 - 0.8) / (1 + 0.8)
    assert part["error"] == pytest.approx(kT(310.0) / np.sqrt(0.3 * 0.7 * effective), rel=0.25)
    error = np.hypot(part["error"], part["reference_error"])
    assert abs(part["free_energy"] - part["reference"]) < 3 * error < abs(off["free_energy"] - off["reference"])
    head = {"peptide": "AA", "atoms": 23, "machine": "abacus", "load": 1.0, "budget": 10.0, "method": "sample"}
    assert "free energies of 1 basins by sample, 1 peptides: 1 within" in table(ranked([head | same]))
    assert "free energies" not in table(ranked([head | other]))  # its population fails the gate


def test_a_basin_without_frames_has_no_free_energy(target):
    row, _ = judge(target, np.zeros((4, 800), dtype=int))
    assert [part["free_energy"] for part in row["free_energies"]] == [None]


def test_a_basin_that_one_half_of_the_reference_alone_has_found_is_told_and_not_asked_for():
    """One ladder that stays where it began makes up a basin: nobody is asked to have been there, MD no more than us."""
    target, whole = toy.target(0.4, alone=True), toy.target(0.2)
    common, rare = sorted(whole.shares, key=lambda name: -whole.shares[name])
    assert (list(target.shares), list(target.doubtful)) == ([common], [rare])
    assert target.doubtful[rare] == pytest.approx(0.2, abs=0.02)
    assert not whole.doubtful
    known = Crossings(1e4, 100, {common: 100, rare: 0}, 0.5, {common: 0.8, rare: 0.2})  # of a cache that asked for both
    stuck = np.zeros((4, 800), dtype=int)
    records = toy.records(np.random.default_rng(3), stuck, picoseconds=9.0)
    rows = [
        judged(records, replace(t, dynamics={"md-tuned": known}), 310.0, method="md-tuned")[0] for t in (target, whole)
    ]
    assert [row["missed_basins"] for row in rows] == [[], [rare]]
    assert [row["doubtful_basins"] for row in rows] == [row["missed_doubtful"] for row in rows] == [[rare], []]
    assert [bool(row["gates"]) for row in rows] == [False, True]
    assert rows[0]["dynamics_ess_bound"] > rows[1]["dynamics_ess_bound"]
    head = {"peptide": "AA", "atoms": 23, "machine": "abacus", "load": 1.0, "budget": 10.0, "method": "sample"}
    told = f"found by one half of the reference alone, and not asked for: AA {rare}"
    assert [told in table(ranked([head | row])) for row in rows] == [True, False]


def test_a_biased_method_is_judged_by_the_states_that_it_finds(target):
    rng = np.random.default_rng(2)
    row, _ = judged(toy.records(rng, toy.jumps(rng, 4, 50, FLIP, FLIP)), target, 310.0, biased=True)
    assert row["ess"] is None
    assert row["states_seconds"] < 10
    other = toy.row(method="md-paper", states_seconds=60.0)
    found = ranked([other, toy.row(method="explore", **row)])[1]
    assert found["speedup"] is None
    assert found["states_speedup"] == pytest.approx(60.0 / row["states_seconds"])


def test_without_a_frame_nothing_is_claimed(target):
    row, curves = judged([Record.empty(2, 23, 7.0), Record.empty(2, 23, 8.0)], target, 310.0)
    assert (row["ess"], row["ess_per_second"], row["seconds"]) == (0, 0, 8)
    assert row["gates"] == ["0 frames a chain, fewer than 20"]
    assert curves == {}


def test_the_published_protocol_sees_one_chain_at_a_time():
    rng = np.random.default_rng(5)
    rho, noise = 0.9, rng.standard_normal((4, 20_000))
    for k in range(1, noise.shape[1]):
        noise[:, k] = rho * noise[:, k - 1] + np.sqrt(1 - rho**2) * noise[:, k]
    assert published_ess(noise) == pytest.approx(noise.size * (1 - rho) / (1 + rho), rel=0.1)
    apart = noise + np.array([[0.0], [9.0], [0.0], [9.0]])
    assert published_ess(apart) == pytest.approx(published_ess(noise))
    np.testing.assert_allclose(autocorrelation(noise)[:8], rho ** np.arange(8), atol=0.03)


@pytest.mark.parametrize(("up", "down"), [(0.01, 0.01), (0.002, 0.02)])
def test_crossings_bound_what_a_two_state_chain_is_worth(up, down):
    """The effective size of a chain of T frames is T (f + g) / (2 - f - g), f and g the chances to cross."""
    share, frames, low = up / (up + down), 2000, 0
    worth = frames * (up + down) / (2 - up - down)
    for seed in range(40):
        state = toy.jumps(np.random.default_rng(seed), 1, frames, up, down).astype(float)
        bound = most_effective_samples(Sides(0.1, 0.9, share).crossings(state), share)
        low += bound < worth
    assert low <= 5  # the limit is one of 95 %
    crossings = 2 * frames * share * (1 - share) * (up + down)
    assert most_effective_samples(round(crossings), share) < 3 * worth


def test_the_largest_estimate_counts_unless_the_crossings_forbid_it():
    assert most_effective_samples(0, 0.5) == pytest.approx(6.0, abs=0.01)
    assert most_effective_samples(0, 0.5, 0.5) == pytest.approx(12.0, abs=0.02)
    assert most_effective_samples(0, 0.5, estimates=[0.4, 2.0]) == 2.0
    assert most_effective_samples(0, 0.5, estimates=[500.0, 2.0]) == pytest.approx(6.0, abs=0.01)
    assert most_effective_samples(0, 0.5, estimates=[0.0]) == pytest.approx(6.0, abs=0.01)
    with pytest.raises(ValueError, match="shares within"):
        most_effective_samples(0, 1.0)


def test_the_slowest_basin_says_what_chains_are_worth_at_most(target):
    many, none = dict.fromkeys(target.shares, 10_000), dict.fromkeys(target.shares, 0)
    assert at_most(target, 10_000, many, [500.0]) == 500
    # three limits of 95 % together: -ln(0.05 / 3) pairs of crossings, over 2 p (1 - p)
    unseen = at_most(target, 10_000, many | {min(none): 0}, [500.0])
    share = target.safe_share(min(none))
    assert share == pytest.approx(0.5 - 2 * target.errors[min(none)], abs=0.02)
    assert unseen == pytest.approx(-np.log(0.05 / 3) / (2 * share * (1 - share)), rel=1e-6)
    words = np.array([["a", "b", "b", "a"], ["b", "b", "b", "c"]])
    assert [crossings(words, name) for name in "abcd"] == [2, 3, 1, 0]


def test_turning_back_halfway_is_no_crossing():
    sides = Sides.of(np.repeat([0.0, 1.0], [300, 100]) + 0.01 * np.sin(np.arange(400)))
    assert sides.share == pytest.approx(0.25)
    assert (sides.low, sides.high) == (pytest.approx(0.25, abs=0.01), pytest.approx(0.75, abs=0.01))
    assert sides.crossings(np.array([[-0.1, 0.5, 0.7, 0.5, -0.1], [-0.1, 0.5, 0.8, 0.5, -0.1]])) == 2
    even = np.random.default_rng(0).normal(np.repeat([0.0, 9.0], 2000))
    assert Sides.of(even).between == pytest.approx(2 / np.pi, rel=0.01)


def test_states_count_once_all_were_seen_by_anybody():
    words, seconds = [np.array([["a", "a", "b"]]), np.array([["a", "c"]])], [np.array([1.0, 2, 3]), np.array([4.0, 5])]
    assert until_all(words, seconds, ["a", "b"]) == 3
    assert until_all(words, seconds, ["a", "b", "c"]) == 5
    assert until_all(words, seconds, ["a", "d"]) is None
