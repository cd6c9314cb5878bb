"""Convergence: known autocorrelation times, known worth, and no number where none can be told."""

import math

import numpy as np
import pytest
import torch
from scipy import signal, stats

from timewarp.mcmc import autocorrelation_time, bulk_ess, rhat


def autoregressive(phi, chains=8, steps=20_000, seed=0):
    """AR(1) at equilibrium, N(0, 1): its integrated autocorrelation time is (1 + phi) / (1 - phi)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(chains, steps)) * math.sqrt(1 - phi**2)
    noise[:, 0] = rng.normal(size=chains)
    return signal.lfilter([1], [1, -phi], noise, axis=1)


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9, 0.98])
def test_an_autoregressive_series_has_its_known_time(phi):
    x = autoregressive(phi)
    known = (1 + phi) / (1 - phi)
    assert autocorrelation_time(x) == pytest.approx(known, rel=0.1)
    assert bulk_ess(x) == pytest.approx(x.size / known, rel=0.1)
    assert rhat(x) < 1.01


def test_the_effective_size_is_that_of_the_error_of_the_mean():
    """300 short experiments: the variance of the mean is 1 / ESS."""
    means, sizes = [], []
    for seed in range(300):
        x = autoregressive(0.8, chains=4, steps=500, seed=seed)
        means.append(x.mean())
        sizes.append(bulk_ess(x))
    expected = np.mean(1 / np.array(sizes))
    assert np.var(means) / expected == pytest.approx(1, abs=0.3)


def test_ranks_make_it_blind_to_monotone_maps_and_to_heavy_tails():
    x = autoregressive(0.7, steps=2000)
    assert bulk_ess(np.exp(3 * x)) == pytest.approx(bulk_ess(x), rel=1e-6)
    cauchy = stats.cauchy.ppf(stats.norm.cdf(x))
    assert rhat(cauchy) == pytest.approx(rhat(x), abs=0.02)


def test_rhat_sees_chains_that_disagree_in_mean_or_in_spread():
    x = autoregressive(0.5, chains=4, steps=1000)
    assert rhat(x) < 1.01
    moved, spread = x.copy(), x.copy()
    moved[0] += 2
    spread[0] *= 4
    assert rhat(moved) > 1.1
    assert rhat(spread) > 1.1
    assert bulk_ess(moved) < bulk_ess(x) / 10
    drift = x + np.linspace(0, 4, 1000)
    assert rhat(drift) > 1.1


def test_rhat_of_a_single_chain_compares_its_parts():
    x = autoregressive(0.5, chains=1, steps=4000)
    assert rhat(x) < 1.02
    assert rhat(x + 3 * (np.arange(4000) > 2000)) > 1.5


def test_a_frozen_chain_among_others_costs_most_of_the_worth():
    x = autoregressive(0.0, chains=4, steps=1000)
    x[3] = 1.7
    assert bulk_ess(x) < 100
    assert rhat(x) > 1.05


def test_chains_that_never_moved_are_worth_nothing_that_can_be_told():
    same, differing = np.full((4, 1000), 2.5), np.arange(4.0)[:, None] * np.ones((4, 1000))
    for stuck in (same, differing):
        assert math.isnan(bulk_ess(stuck))
        assert math.isnan(autocorrelation_time(stuck))
        assert not bulk_ess(stuck) > 100
    assert math.isnan(rhat(same))
    assert rhat(differing) == math.inf
    assert not rhat(same) < 1.01


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_too_short_to_tell(steps):
    x = np.random.default_rng(0).normal(size=(4, steps))
    assert math.isnan(bulk_ess(x))
    assert math.isnan(autocorrelation_time(x))
    assert math.isnan(rhat(x))
    assert math.isnan(rhat(x[:1]))


def test_takes_tensors_of_any_precision():
    x = autoregressive(0.5, chains=3, steps=400)
    assert bulk_ess(torch.as_tensor(x)) == bulk_ess(x)
    assert bulk_ess(torch.as_tensor(x, dtype=torch.float32)) == pytest.approx(bulk_ess(x), rel=1e-3)


@pytest.mark.parametrize("measure", [autocorrelation_time, bulk_ess, rhat])
def test_errors_say_what_to_do(measure):
    with pytest.raises(ValueError, match=r"expected a series \[chains, steps\], got shape \[7\]"):
        measure(np.zeros(7))
    with pytest.raises(ValueError, match=r"expected a series \[chains, steps\], got shape \[4, 0\]"):
        measure(np.zeros((4, 0)))
    with pytest.raises(ValueError, match="expected a finite series, got 2 other values; drop them first"):
        measure(np.array([[0.0, 1.0, np.nan, 2.0, np.inf]]))
