"""The verdict trusts independent draws and nothing less, and says why in plain sentences."""

import json

import numpy as np
import pytest

from timewarp.analysis.convergence import verdict
from timewarp.mcmc.ess import bulk_ess, rhat


def judge(observables, **options):
    result = verdict(observables, ess=bulk_ess, rhat=rhat, **options)
    json.dumps(result, allow_nan=False)  # report.json has to stay JSON
    return result


def angles(rng, shape):
    turns = rng.vonmises(0.0, 2.0, size=shape)
    return np.stack([np.sin(turns), np.cos(turns)], axis=-1)


def test_independent_draws_are_converged(rng):
    found = judge({"phi 2": angles(rng, (4, 1000)), "energy": rng.normal(size=(4, 1000))}, acceptance=[0.3] * 4)
    assert found["verdict"] == "converged"
    assert found["reasons"] == []
    assert found["ess"]["min"] == min(found["ess"]["phi 2"], found["ess"]["energy"]) > 2000
    assert found["rhat"]["max"] < 1.01


def test_one_stuck_chain_is_enough_to_fail(rng):
    draws = angles(rng, (4, 1000))
    draws[3] = draws[3, 0]
    found = judge({"phi 2": draws}, acceptance=[0.3, 0.3, 0.3, 0.0])
    assert found["verdict"] == "not converged"
    assert "acceptance is 0 in chain 3" in found["reasons"]
    assert "phi 2 never changed in chain 3" in found["reasons"]
    assert any(r.startswith("R-hat of phi 2 is 1.") and r.endswith("above 1.01") for r in found["reasons"])


def test_chains_in_different_basins_are_not_converged(rng):
    found = judge({"psi 1": rng.normal(size=(4, 1000)) + np.array([[0], [0], [0], [3.0]])})
    assert found["verdict"] == "not converged"
    assert found["rhat"]["psi 1"] > 1.1


def test_slow_chains_that_agree_lack_samples(rng):
    slow = np.repeat(rng.permuted(np.tile(np.linspace(-1, 1, 20), (4, 1)), axis=1), 50, axis=1)
    found = judge({"phi 2": slow + 0.01 * rng.normal(size=slow.shape)})
    assert any(r == f"ESS of phi 2 is {int(found['ess']['phi 2'])}, below 400" for r in found["reasons"])


def test_the_worse_of_sine_and_cosine_counts(rng):
    both = np.stack([rng.normal(size=(4, 1000)), np.repeat(rng.normal(size=(4, 20)), 50, axis=1)], axis=-1)
    found = judge({"phi 2": both})
    assert found["ess"]["phi 2"] == pytest.approx(bulk_ess(both[..., 1]))
    assert found["rhat"]["phi 2"] == pytest.approx(rhat(both[..., 1]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 0), (4, 3), (4, 1), (1, 5)])
def test_short_runs_are_judged_without_a_crash(rng, shape):
    found = judge({"phi 2": angles(rng, shape), "energy": rng.normal(size=shape)})
    assert found["verdict"] == "not converged"
    assert found["ess"]["min"] >= 0


def test_few_chains_frozen_runs_nothing_and_bias_are_reasons(rng):
    assert (
        "fewer than four chains (2), so mixing cannot be judged" in judge({"e": rng.normal(size=(2, 900))})["reasons"]
    )
    frozen = judge({"e": np.repeat(np.arange(4.0)[:, None], 100, axis=1)})
    assert frozen["reasons"] == ["e never changed in any chain"]
    assert frozen["ess"]["e"] == 0
    assert judge({})["reasons"] == ["nothing was observed"]
    biased = judge({"e": rng.normal(size=(4, 1000))}, exact=False)
    assert biased["verdict"] == "not converged"
    assert "biased by design" in biased["reasons"][0]
    broken = rng.normal(size=(4, 1000))
    broken[1, 7] = np.nan
    assert judge({"e": broken})["reasons"] == ["e has values that are not finite"]


def test_more_chains_need_more_samples(rng):
    found = judge({"e": np.repeat(rng.normal(size=(32, 50)), 20, axis=1)})
    assert any("below 3200" in r for r in found["reasons"])
