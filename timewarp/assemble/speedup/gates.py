"""What chains have to show before their effective sample size counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from timewarp.analysis.basins import populations
from timewarp.mcmc.ess import bulk_ess

RHAT = 1.05
WORST = 4.0  # standard errors by which a population may differ: some ten of them are looked at
FRAMES = 20  # of a chain


def missed(words: np.ndarray, shares: Mapping[str, float]) -> list[str]:
    """The basins of the reference in which no frame is, the most populated first."""
    seen = set(np.unique(words).tolist())
    return [name for name in sorted(shares, key=lambda n: -shares[n]) if name not in seen]


def farthest(
    words: np.ndarray, shares: Mapping[str, float], errors: Mapping[str, float], temperature: float
) -> tuple[str, float]:
    """The basin whose population differs most from the reference's, and by how many standard errors of both."""
    found = {row.name: row for row in populations(words, temperature, bulk_ess)}
    worst, most = "", 0.0
    for name, share in shares.items():
        row = found.get(name)
        own = row.error if row is not None and row.error is not None else 0.0
        error = float(np.hypot(own, errors[name]))
        gap = abs((row.share if row is not None else 0.0) - share) / error if error else 0.0
        if gap > most:
            worst, most = name, gap
    return worst, most


def complaints(frames: int, rhat: float | None, absent: list[str], basin: str, gap: float) -> list[str]:
    """Why the effective sample size of chains does not count; nothing if it does.

    Args:
        frames: of each chain, warm-up left out.
        rhat: the largest of all observables, None where it cannot be told.
        absent: basins that were not visited.
        basin, gap: whose population is farthest from the reference, in standard errors.
    """
    if frames < FRAMES:
        return [f"{frames} frames a chain, fewer than {FRAMES}"]
    said = []
    if rhat is None or not rhat < RHAT:
        said.append("R-hat unknown" if rhat is None else f"R-hat {rhat:.2f}")
    if absent:
        said.append(f"{len(absent)} basin{'s' * (len(absent) > 1)} missed")
    if gap > WORST:
        said.append(f"population of {basin} off by {gap:.1f} errors")
    return said
