"""An upper bound of what chains are worth that are too short to tell.

The effective sample size of chains that hardly crossed, taken from their own autocorrelation, says how fast they move
within a basin. What they can be worth at most is told by how often they crossed, and by how long a crossing takes.
"""

from __future__ import annotations

CONFIDENCE = 0.95


def most_effective_samples(
    crossings: int,
    share: float,
    picoseconds: float | None = None,
    timescale: float | None = None,
    between: float = 1.0,
) -> float:
    """The larger of two upper bounds, of crossings and of times.

    For a process with two states, of population p and 1 - p, that crosses N times in all, the effective sample size
    of the indicator of a state is N / (4 p (1 - p)). Crossings come in pairs, there and back; the number of pairs is
    bounded from above by the Poisson limit of what was seen (3.0 for none). For a coordinate that forgets in
    `timescale`, it is T / (2 timescale).

    Args:
        crossings: seen.
        share: population p of one side.
        picoseconds: simulated by all chains, T; None where the method has no time.
        timescale: of the slowest coordinate, in ps.
        between: share of the observable's variance that is due to the sides; the rest is forgotten at once at best.

    Raises:
        ValueError: if `share` or `between` is not between 0 and 1, or `crossings` is negative.
    """
    from scipy.stats import chi2

    if not (0 < share < 1 and crossings >= 0 and 0 < between <= 1):
        raise ValueError(f"expected shares within (0, 1) and crossings >= 0, got {share}, {between}, {crossings}")
    pairs = (crossings + 1) // 2
    limit = float(chi2.ppf(CONFIDENCE, 2 * (pairs + 1))) / 2
    most = 2 * limit / (4 * share * (1 - share))
    if picoseconds is None or not timescale:
        return most / between
    return max(most, picoseconds / (2 * timescale)) / between
