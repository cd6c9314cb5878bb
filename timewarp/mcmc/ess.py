"""How much a set of chains is worth: autocorrelation time, effective sample size, and split R-hat.

Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), "Rank-normalization, folding, and localization: an improved
R-hat", Bayesian Analysis 16(2), eqs. 4, 10 - 15; the estimates are those of `arviz_stats`.

All take one observable as an array [chains, steps], a value for each *test* (see `timewarp.mcmc`: what was rejected is
repeated). Angles go in as their sine and cosine. None takes silence for agreement: where nothing can be told the answer
is nan (fewer than 4 steps; no chain moved, so that stuck and constant look the same), and a comparison with nan is
false, so `bulk_ess(x) > 400 and rhat(x) < 1.01` is the safe way round.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

Series = ArrayLike  # [chains, steps]


def autocorrelation_time(series: Series) -> float:
    """The integrated autocorrelation time of the mean, 1 + 2 sum_t rho(t), in steps; below 1 if antithetic.

    Chains that disagree count as correlated. nan with fewer than 4 steps or if no chain moved.

    Raises:
        ValueError: if the series is not a finite array [chains, steps].
    """
    x = _checked(series)
    return x.size / _ess(x, "mean")


def bulk_ess(series: Series) -> float:
    """The effective number of independent draws in all chains together, of the rank-normalised series.

    A chain that is stuck while others move lowers it strongly. nan with fewer than 4 steps or if no chain moved.

    Raises:
        ValueError: if the series is not a finite array [chains, steps].
    """
    return _ess(_checked(series), "bulk")


def rhat(series: Series) -> float:
    """Rank-normalised split R-hat, the larger of the bulk and the folded one; 1 when all halves agree.

    A single chain is cut in two first. inf if no chain moved but they differ; nan if nothing ever differed, or with
    fewer than 4 steps (8 for a single chain).

    Raises:
        ValueError: if the series is not a finite array [chains, steps].
    """
    x = _checked(series)
    if len(x) == 1:
        half = x.shape[1] // 2
        x = np.stack([x[0, :half], x[0, -half:]]) if half else x
    if x.shape[1] < 4 or np.ptp(x) == 0:
        return np.nan
    if _frozen(x):
        return np.inf
    return float(_arviz().rhat(x, chain_axis=0, draw_axis=1, method="rank"))


def _ess(x: np.ndarray, method: str) -> float:
    if x.shape[1] < 4 or _frozen(x):
        return np.nan
    return float(_arviz().ess(x, chain_axis=0, draw_axis=1, method=method))


def _frozen(x: np.ndarray) -> bool:
    return bool((np.ptp(x, axis=1) == 0).all())


def _checked(series: Series) -> np.ndarray:
    x = np.asarray(series, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"expected a series [chains, steps], got shape {list(x.shape)}; one observable at a time")
    if not np.isfinite(x).all():
        raise ValueError(f"expected a finite series, got {(~np.isfinite(x)).sum()} other values; drop them first")
    return x


def _arviz():
    # its import takes seconds, which sampling alone need not pay
    from arviz_stats.base import array_stats

    return array_stats
