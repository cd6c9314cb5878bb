"""Effective sample size and R-hat of chains, split in halves and rank-normalised.

Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), "Rank-normalization, folding, and localization: an improved
R-hat", Bayesian Analysis 16(2); the sums of autocorrelations are cut as Geyer (1992), Statistical Science 7(4), has it.
The figures are those of `arviz_stats`, whose import takes longer than all of a short run's statistics.

| symbol | variable |
|---|---|
| theta, [chains, draws] | x |
| z = Phi^-1((rank - 3/8) / (S + 1/4)), eq. 14 | normal_scores |
| W, var^+ (eqs. 2, 3) | within, total |
| rho_t (eq. 10) | correlation |
| P_t = rho_2t + rho_2t+1, kept while positive, none above the one before | pairs |
| tau = -1 + 2 sum P_t + the even one behind them | time |
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

Series = Float[np.ndarray, "chains draws"]


def split(x: Series) -> Float[np.ndarray, "halves half"]:
    """The halves of the chains as chains; of an odd number of draws the middle one is left out."""
    half = x.shape[1] // 2
    return np.vstack([x[:, :half], x[:, -half:]])


def normal_scores(x: Series) -> Series:
    """Each draw's rank among all, as a quantile of N(0, 1); equal draws share their mean rank."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - 0.5 * (counts - 1))[place.reshape(-1)]
    return torch.special.ndtri(torch.from_numpy((rank - 0.375) / (x.size + 0.25))).numpy().reshape(x.shape)


def potential_scale(x: Series) -> float:
    """R-hat of chains as they are."""
    draws = x.shape[1]
    between, within = draws * x.mean(1).var(ddof=1), x.var(1, ddof=1).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt((between / within + draws - 1) / draws))


def rank_rhat(x: Series) -> float:
    """The larger of the R-hat of the halves' ranks and of that of their distances from the median."""
    halves = split(x)
    return max(potential_scale(normal_scores(halves)), potential_scale(normal_scores(abs(halves - np.median(halves)))))


def effective_size(x: Series) -> float:
    """The effective sample size of the mean of chains as they are, of at least two draws each."""
    chains, draws = x.shape
    if np.ptp(x) < np.finfo(float).resolution:
        return float(x.size)
    lagged = _autocovariances(x).mean(0)
    within = lagged[0] * draws / (draws - 1)
    total = lagged[0] + (x.mean(1).var(ddof=1) if chains > 1 else 0.0)
    correlation = 1 - (within - lagged) / total
    correlation[0] = 1.0
    pairs = [correlation[0] + correlation[1]]
    even, t = 1.0, 1
    while t < draws - 3 and pairs[-1] > 0:
        even = correlation[t + 1]
        pairs.append(even + correlation[t + 2])
        t += 2
    behind = even if even > 0 or pairs[-1] >= 0 else 0.0
    kept = np.minimum.accumulate(pairs)[:-1]
    time = max(-1 + 2 * float(kept.sum()) + float(behind), 1 / np.log10(x.size))
    return float(x.size / time)


def _autocovariances(x: Series) -> Series:
    """Of each chain at every lag, the sums over pairs divided by the number of draws."""
    draws = x.shape[1]
    padded = 1 << (2 * draws - 1).bit_length()
    power = np.abs(np.fft.rfft(x - x.mean(1, keepdims=True), padded, axis=1)) ** 2
    return np.fft.irfft(power, padded, axis=1)[:, :draws] / draws
