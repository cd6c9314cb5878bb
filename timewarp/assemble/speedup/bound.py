"""What chains can be worth at most that are too short to tell.

The effective sample size of chains that hardly crossed, taken from their own autocorrelation, says how fast they move
within a basin. It is too large, for it knows nothing of what they have not seen; how often they crossed, and how long
a crossing takes, say how large the true one can be.
"""

from __future__ import annotations

from collections.abc import Sequence

CONFIDENCE = 0.95


def most_effective_samples(
    crossings: int, share: float, between: float = 1.0, estimates: Sequence[float] = (), limits: int = 1
) -> float:
    """The largest of the `estimates`, or what the crossings allow, if that is less.

    For a process with two states, of population p and 1 - p, that crosses N times in all, the effective sample size
    of the indicator of a state is N / (4 p (1 - p)). Crossings come in pairs, there and back; the number of pairs is
    bounded from above by the Poisson limit of what was seen (3.0 for none).

    Args:
        crossings: seen by all chains together.
        share: population p of one side.
        between: share of the observable's variance that is due to the sides; the rest is forgotten at once at best.
        estimates: of the effective sample size, each from above: from the autocorrelation, or from the time over
            twice the slowest timescale. Without them the crossings alone count.
        limits: how many such limits are looked at, of which all shall hold together with `CONFIDENCE`.

    Raises:
        ValueError: if `share` or `between` is not between 0 and 1, or `crossings` is negative.
    """
    if not (0 < share < 1 and crossings >= 0 and 0 < between <= 1):
        raise ValueError(f"expected shares within (0, 1) and crossings >= 0, got {share}, {between}, {crossings}")
    crossed = 2 * pairs(crossings, limits) / (4 * share * (1 - share)) / between
    return min(crossed, max(estimates)) if max(estimates, default=0.0) > 0 else crossed


def pairs(crossings: int, limits: int = 1) -> float:
    """The most pairs of crossings, there and back, that are expected where so many crossings were seen.

    The Poisson limit from above (3.0 for none), so that `limits` of them hold together with `CONFIDENCE`.
    """
    from scipy.stats import chi2

    return float(chi2.ppf(1 - (1 - CONFIDENCE) / limits, 2 * ((crossings + 1) // 2 + 1))) / 2
