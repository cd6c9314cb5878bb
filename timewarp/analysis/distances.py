"""Distances between two ensembles, as the literature on transferable samplers reports them.

All compare samples with equal weights. `energy_w2`, `torus_w2` and `euclidean_w2` (on TICA coordinates) are the
E-W2, T-W2 and TICA-W2 of Tan et al. 2025 (arXiv 2508.18175), the published figures being between 10^4 samples each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


def energy_w2(a: Float[np.ndarray, " first"], b: Float[np.ndarray, " second"]) -> float:
    """Wasserstein-2 distance in one dimension, exact for any two counts, in the unit of its arguments."""
    a, b = np.sort(_finite(a)), np.sort(_finite(b))
    levels = np.unique(np.concatenate([np.arange(1, len(a) + 1) / len(a), np.arange(1, len(b) + 1) / len(b)]))
    masses = np.diff(levels, prepend=0.0)
    middle = levels - masses / 2
    gap = a[(middle * len(a)).astype(int)] - b[(middle * len(b)).astype(int)]
    return float(np.sqrt(np.sum(masses * gap**2)))


def torus_w2(a: Float[np.ndarray, "first angles"], b: Float[np.ndarray, "second angles"]) -> float:
    """Wasserstein-2 distance in rad on the torus, with the squared distance summed over angles."""
    cost = np.zeros((len(_finite(a)), len(_finite(b))))
    for x, y in zip(np.asarray(a).T, np.asarray(b).T, strict=True):
        gap = np.abs(x[:, None] - y[None]) % (2 * np.pi)
        cost += np.minimum(gap, 2 * np.pi - gap) ** 2
    return _transport(cost)


def euclidean_w2(a: Float[np.ndarray, "first k"], b: Float[np.ndarray, "second k"]) -> float:
    """Wasserstein-2 distance of points with the Euclidean distance, for TICA coordinates."""
    cost = np.zeros((len(_finite(a)), len(_finite(b))))
    for x, y in zip(np.asarray(a).T, np.asarray(b).T, strict=True):
        cost += (x[:, None] - y[None]) ** 2
    return _transport(cost)


class KolmogorovSmirnov(NamedTuple):
    """The largest gap of two cumulative distributions, and how probable one this large is by chance."""

    statistic: float
    pvalue: float


def kolmogorov_smirnov(
    a: Float[np.ndarray, " first"], b: Float[np.ndarray, " second"], ess_a: float, ess_b: float
) -> KolmogorovSmirnov:
    """Two-sample K-S test in which correlated draws count as their effective number (Stephens 1970 correction).

    Args:
        a, b: draws of one observable.
        ess_a, ess_b: effective sample size of each; the lengths, if the draws are independent.
    """
    from scipy.special import kolmogorov
    from scipy.stats import ks_2samp

    statistic = float(ks_2samp(_finite(a), _finite(b), method="asymp").statistic)
    root = np.sqrt(ess_a * ess_b / (ess_a + ess_b))
    return KolmogorovSmirnov(statistic, float(kolmogorov((root + 0.12 + 0.11 / root) * statistic)))


def overlap(a: Float[np.ndarray, " first"], b: Float[np.ndarray, " second"], bins: int = 50) -> float:
    """Shared area of two histograms over their common range: 1 for the same, 0 for disjoint ones."""
    a, b = _finite(a), _finite(b)
    edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()) + 1e-12, bins + 1)
    return float(np.minimum(np.histogram(a, edges)[0] / len(a), np.histogram(b, edges)[0] / len(b)).sum())


def thinned(values: Float[np.ndarray, "draws ..."], count: int) -> Float[np.ndarray, "kept ..."]:
    """At most `count` of the draws, evenly spread: exact transport takes `count`^2 memory and more time."""
    return values if len(values) <= count else values[np.linspace(0, len(values) - 1, count).astype(int)]


def _transport(cost) -> float:
    """Square root of the cheapest matching of equal weights: with POT for any counts, with scipy for equal ones."""
    if cost.shape[0] == cost.shape[1]:
        from scipy.optimize import linear_sum_assignment

        return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))
    try:
        import ot
    except ImportError:
        raise ValueError(
            f"expected two samples of one size, got {cost.shape[0]} and {cost.shape[1]}; "
            "thin them to the same count, or `pip install POT`"
        ) from None
    weights = [np.full(n, 1 / n) for n in cost.shape]
    return float(np.sqrt(max(ot.emd2(*weights, cost, numItermax=10**9), 0.0)))


def _finite(values):
    values = np.asarray(values)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"expected finite draws, got {len(values)} with {np.sum(~np.isfinite(values))} not finite")
    return values
