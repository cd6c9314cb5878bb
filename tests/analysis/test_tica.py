"""TICA finds the slow direction and its relaxation time, whatever the scale of the fast one."""

import numpy as np
import pytest

from timewarp.analysis.distances import euclidean_w2
from timewarp.analysis.tica import fit_tica


def process(rng, chains=4, frames=20000, slow=0.98, fast=0.5):
    """Two autoregressive coordinates, the fast one with a hundred times the variance, then rotated by 30 degrees."""
    noise = rng.normal(size=(frames, chains, 2))
    x = np.zeros((frames, chains, 2))
    rates = np.array([slow, fast])
    for t in range(1, frames):
        x[t] = rates * x[t - 1] + np.sqrt(1 - rates**2) * noise[t]
    x = x.swapaxes(0, 1)
    turn = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])
    return x, (x * [1.0, 10.0]) @ turn.T


def test_the_slow_coordinate_and_its_time_come_back(rng):
    hidden, seen = process(rng)
    model = fit_tica(seen, lag=5)
    found = model(seen)
    assert abs(np.corrcoef(found[..., 0].ravel(), hidden[..., 0].ravel())[0, 1]) > 0.99
    np.testing.assert_allclose(model.eigenvalues, [0.98**5, 0.5**5], atol=0.02)
    assert model.timescales[0] == pytest.approx(-1 / np.log(0.98), rel=0.15)
    np.testing.assert_allclose(found.reshape(-1, 2).std(0), 1, atol=0.02)


@pytest.mark.parametrize("lag", [1, 7])
def test_it_agrees_with_deeptime(rng, lag):
    from deeptime.decomposition import TICA

    _, seen = process(rng, frames=3000)
    seen = np.concatenate([seen, np.sin(seen[..., :1])], -1)
    found = fit_tica(seen, lag)
    theirs = TICA(lagtime=lag, dim=2).fit(list(seen)).fetch_model()
    np.testing.assert_allclose(found.eigenvalues, theirs.singular_values[:2], rtol=1e-3)
    for k in range(2):
        ours, other = found(seen)[..., k].ravel(), np.concatenate([theirs.transform(c) for c in seen])[:, k]
        assert abs(np.corrcoef(ours, other)[0, 1]) > 1 - 1e-4


def test_pairs_are_taken_within_chains_only(rng):
    # short chains that each sit elsewhere: within a chain nothing correlates, across the joins nothing may
    chains = [rng.normal(size=(int(n), 1)) for n in rng.integers(3, 8, size=3000)]
    assert abs(fit_tica(chains, lag=2).eigenvalues[0]) < 0.05


def test_linearly_dependent_features_change_nothing(rng):
    _, seen = process(rng, frames=4000)
    doubled = np.concatenate([seen, seen[..., :1] - seen[..., 1:], np.ones_like(seen[..., :1])], axis=-1)
    plain, more = fit_tica(seen, lag=5), fit_tica(doubled, lag=5, dim=4)
    np.testing.assert_allclose(more.eigenvalues, plain.eigenvalues, atol=1e-6)
    assert abs(np.corrcoef(more(doubled)[..., 0].ravel(), plain(seen)[..., 0].ravel())[0, 1]) > 1 - 1e-6


def test_the_kinetic_map_scales_by_the_eigenvalue(rng):
    _, seen = process(rng, frames=4000)
    model = fit_tica(seen, lag=5, kinetic=True)
    np.testing.assert_allclose(model(seen).reshape(-1, 2).std(0), np.abs(model.eigenvalues), rtol=0.02)


def test_the_kinetic_map_at_another_lag_follows_the_timescales(rng):
    _, seen = process(rng)
    near, far = fit_tica(seen, lag=5).kinetic(20), fit_tica(seen, lag=20, kinetic=True)
    np.testing.assert_allclose(near(seen).std((0, 1)), [0.98**20, 0.5**20], atol=0.05)
    np.testing.assert_allclose(near(seen)[..., 0].std(), far(seen)[..., 0].std(), rtol=0.1)


def test_a_basin_that_is_missing_is_seen_in_the_slow_coordinates(rng):
    # two basins along a direction of little variance, crossed once in 500 frames
    side = np.cumsum(rng.random((4, 5000)) < 1 / 500, axis=1) % 2
    seen = np.stack([0.3 * side + 0.05 * rng.normal(size=side.shape), 3 * rng.normal(size=side.shape)], -1)
    slow = fit_tica(seen, lag=10).kinetic(10)(seen).reshape(-1, 2)
    halves = euclidean_w2(slow[::40], slow[20::40])
    whole, missing = slow[::40], slow[side.reshape(-1) == 0][::40]
    assert euclidean_w2(whole, missing) > 0.8 > 3 * halves


def test_what_cannot_be_fitted_says_so():
    with pytest.raises(ValueError, match="a shorter lag"):
        fit_tica([np.zeros((3, 2))], lag=3)
    with pytest.raises(ValueError, match="constant"):
        fit_tica([np.ones((30, 2))], lag=3)
