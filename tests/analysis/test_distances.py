"""Transport distances have the values that theory gives, with and without equal counts."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm

from timewarp.analysis.distances import energy_w2, euclidean_w2, kolmogorov_smirnov, overlap, thinned, torus_w2


def test_shifted_gaussians_are_their_shift_apart():
    quantiles = norm.ppf((np.arange(20000) + 0.5) / 20000)
    assert energy_w2(quantiles, quantiles + 3.0) == pytest.approx(3.0)
    # W2 of N(0, 1) and N(m, s): sqrt(m^2 + (s - 1)^2)
    assert energy_w2(quantiles, 2 * quantiles[::2] + 1.5) == pytest.approx(np.hypot(1.5, 1.0), rel=1e-3)


def test_unequal_counts_are_matched_exactly():
    # half of the mass of 0 and all of 1 stay; by hand: {0, 1} -> {0, 0, 1, 3}: masses 1/4 each move 0, 0, 0, 2
    assert energy_w2(np.array([0.0, 1.0]), np.array([3.0, 0.0, 1.0, 0.0])) == pytest.approx(np.sqrt(4 / 4))


def test_one_dimension_agrees_with_the_general_problem(rng):
    a, b = rng.normal(size=60), rng.gamma(2.0, size=45)
    assert energy_w2(a, b) == pytest.approx(euclidean_w2(a[:, None], b[:, None]), rel=1e-6)
    assert energy_w2(a[:45], b) == pytest.approx(euclidean_w2(a[:45, None], b[:, None]), rel=1e-9)


def test_the_torus_closes_and_angles_add_in_squares(rng):
    a = rng.uniform(-np.pi, np.pi, size=(200, 2))
    shift = np.array([0.3, -0.4])
    wrapped = (a + shift + np.pi) % (2 * np.pi) - np.pi
    assert torus_w2(a, wrapped) <= 0.5 + 1e-9
    near = np.full((50, 2), np.pi - 0.01)
    assert torus_w2(near, -near) == pytest.approx(0.02 * np.sqrt(2))
    # the published cost (Tan et al. 2025): min(|d|, 2 pi - |d|)^2 summed over angles
    assert torus_w2(np.array([[0.0, 0.0]]), np.array([[1.0, 2 * np.pi - 2.0]])) == pytest.approx(np.sqrt(5))


def test_a_shifted_cloud_is_its_shift_away(rng):
    points = rng.normal(size=(300, 2))
    assert euclidean_w2(points, points[::-1] + np.array([3.0, 4.0])) == pytest.approx(5.0)


def test_gaussians_of_two_dimensions_are_their_shift_apart(rng):
    a, b = rng.normal(size=(2, 1500, 2))
    floor, far = euclidean_w2(a, b), euclidean_w2(a, b + np.array([0.0, 2.0]))
    assert floor < 0.2
    assert far == pytest.approx(2.0, abs=0.1)


def test_the_order_of_samples_and_repeating_all_of_them_change_nothing(rng):
    a, b = rng.uniform(-np.pi, np.pi, size=(2, 80, 2))
    once = torus_w2(a, b)
    assert torus_w2(a[rng.permutation(80)], np.tile(b, (3, 1))[rng.permutation(240)]) == pytest.approx(once, rel=1e-9)
    # a sample that a chain stayed at counts for each step
    repeated = np.concatenate([a, a[:40]])
    assert torus_w2(repeated, b) == pytest.approx(np.sqrt(_assigned(repeated, b)), rel=1e-6)


def _assigned(a, b):
    """The same by another solver: equal weights, each point as often as the other side has points."""
    gap = np.abs(np.repeat(a, 2, 0)[:, None] - np.repeat(b, 3, 0)[None])
    cost = (np.minimum(gap, 2 * np.pi - gap) ** 2).sum(-1)
    return cost[linear_sum_assignment(cost)].mean()


def test_the_floor_falls_with_the_frames(rng):
    floors = [np.mean([torus_w2(*rng.vonmises(0, 2, size=(2, n, 2))) for _ in range(4)]) for n in (50, 200, 800)]
    assert floors[0] > 1.4 * floors[1] > 1.4**2 * floors[2]


def test_correlated_draws_count_as_their_effective_number(rng):
    def ends(value):
        return np.repeat(rng.normal(size=20), 50) + value

    rejected = {"counted": 0, "effective": 0}
    for _ in range(200):
        a, b = ends(0.0), ends(0.0)
        rejected["counted"] += kolmogorov_smirnov(a, b, 1000, 1000).pvalue < 0.05
        rejected["effective"] += kolmogorov_smirnov(a, b, 20, 20).pvalue < 0.05
    assert rejected["effective"] <= 22 < 100 < rejected["counted"]
    assert kolmogorov_smirnov(rng.normal(size=1000), rng.normal(0.3, size=1000), 1000, 1000).pvalue < 1e-3


def test_overlap_of_the_same_half_and_nothing():
    x = np.linspace(0, 1, 1001)
    assert overlap(x, x) == pytest.approx(1)
    assert overlap(x, x + 0.5) == pytest.approx(0.5, abs=0.03)
    assert overlap(x, x + 2) == 0


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="1 not finite"):
        energy_w2(np.array([0.0, np.nan]), np.array([0.0]))


def test_thinning_keeps_the_ends_and_the_order():
    kept = thinned(np.arange(100.0), 10)
    assert len(kept) == 10
    assert kept.tolist() == sorted(kept)
    assert kept[[0, -1]].tolist() == [0, 99]
    assert len(thinned(np.arange(9.0), 20)) == 9
