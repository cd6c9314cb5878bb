"""Dynamics that begins at equilibrium bounds what MD is worth, and the bound holds for whatever it is made of."""

from dataclasses import replace
from math import e, inf, log

import numpy as np
import pytest

from timewarp.assemble.energy import energy_of
from timewarp.assemble.speedup.judge import judged
from timewarp.assemble.speedup.kinetics import HASTENED, Kinetics, most_of
from timewarp.mcmc.dynamics import Langevin
from timewarp.md.system import prepare_sequence

from . import toy

MANY = 10**12  # looks, of which no statistical error is left


def bound(rho, share=0.3):
    return most_of(round(MANY * (1 - rho) * 2 * share * (1 - share)), MANY, share)


def test_a_single_exponential_is_met():
    for tau in (1.5, 10.0, 300.0):  # in looks
        assert bound(np.exp(-1 / tau)) == pytest.approx(1 / (2 * tau), rel=1e-3)


def test_it_holds_for_every_mean_of_exponentials():
    rng = np.random.default_rng(0)
    nearest = []
    for _ in range(500):
        count = rng.integers(1, 5)
        weights, taus = rng.dirichlet(np.ones(count)), 10 ** rng.uniform(-3, 3, count)
        rho, exact = float(weights @ np.exp(-1 / taus)), 1 / (2 * float(weights @ taus))
        if rho > 1e-6:
            nearest.append(bound(rho) / exact)
    assert min(nearest) > 0.999
    assert min(nearest) < 1.1  # and is no larger than it has to be
    rho = 0.2  # its worst case: a part of the time of a look, and one that is forgotten at once
    assert bound(rho) == pytest.approx(1 / (2 * e * rho), rel=1e-3)
    assert bound(rho) > -log(rho) / 2


def test_few_looks_make_it_loose():
    """Its share of failures is 5 % at most."""
    rng, share, flip, looks = np.random.default_rng(1), 0.3, 0.02, 400
    exact = most_of(round(flip * MANY), MANY, share)
    found = [most_of(int(changes), looks, share) for changes in rng.binomial(looks, flip, 2000)]
    assert 0.01 < np.mean(np.array(found) < exact) < 0.06
    assert most_of(0, looks, share) < most_of(0, 40, share) < inf
    assert most_of(8, looks, share, limits=5) > most_of(8, looks, share)
    assert most_of(9, 9, share) == most_of(300, 400, share) == inf
    with pytest.raises(ValueError, match="expected a share"):
        most_of(5, 4, share)


def test_the_slowest_basin_counts():
    seen = Kinetics(apart=5.0, looks=1000, changes={"a": 100, "b": 5})
    shares = {"a": 0.4, "b": 0.1}
    assert seen.most(shares) == most_of(5, 1000, 0.1, 2) / 5.0
    assert seen.most({"c": 0.2}) == most_of(0, 1000, 0.2) / 5.0


def test_md_is_worth_no_more_than_the_dynamics_allow():
    target = toy.target()
    stuck = np.zeros((4, 800), dtype=int)
    made = toy.records(np.random.default_rng(3), stuck, picoseconds=20.0)
    before, _ = judged(made, target, 310.0)
    slow = replace(target, kinetics=Kinetics(10.0, 4000, dict.fromkeys(target.shares, 4)))
    row, _ = judged(made, slow, 310.0)
    faster, _ = judged(made, slow, 310.0, hastened=4.0)
    per = slow.kinetics.most({name: slow.safe_share(name) for name in slow.shares})
    assert row["ess_bound_kinetics"] == pytest.approx(2 * 20.0 * per)  # of two processes
    assert row["ess_bound"] == row["ess_bound_kinetics"] < before["ess_bound"] == row["ess_bound_seen"]
    assert faster["ess_bound_kinetics"] == pytest.approx(4 * row["ess_bound_kinetics"])
    assert before["ess_bound_kinetics"] is None
    quick = replace(target, kinetics=Kinetics(10.0, 4000, dict.fromkeys(target.shares, 2000)))
    assert judged(made, quick, 310.0)[0]["ess_bound"] == before["ess_bound"]


def test_friction_of_the_published_protocol_is_allowed_for():
    assert HASTENED["md-paper"] >= Langevin.friction / 0.3


def test_real_dynamics_is_looked_at_and_kept(tmp_path):
    prepared = prepare_sequence("AA")
    energy, molecule, _ = energy_of(prepared, 310.0)
    frames = np.repeat(np.asarray(prepared.positions, dtype=np.float32)[None], 6, 0)
    path, calls = tmp_path / "deep" / "AA.json", []

    def words(x):
        assert x.shape == (6, 4, 23, 3)
        calls.append(np.abs(np.diff(x, axis=1)).max())
        return np.where(np.arange(4) % 2, "a", "b")[None].repeat(6, 0)

    def make():
        return Kinetics.of(molecule, energy, 310.0, frames, words, 60.0, looks=3, apart=0.02)

    made = Kinetics.kept(path, make)
    assert made == Kinetics(0.02, 18, {"a": 18, "b": 18}) == Kinetics.kept(path, make)
    assert len(calls) == 1
    assert calls[0] > 1e-3  # it moves
    path.write_text("{")
    assert Kinetics.kept(path, make) == made
    assert len(calls) == 2
