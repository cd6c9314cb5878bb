"""The slowest coordinates of a run: TICA of the sines and cosines of all dihedrals, at a lag that the run can bear."""

from __future__ import annotations

from timewarp.analysis.ensemble import Ensemble
from timewarp.analysis.tica import Tica, fit_tica

LAGS = (100, 30, 10, 3, 1)  # frames; the longest that leaves a correlation to see is taken
SEEN = 0.3  # the least correlation of the slowest coordinate that is worth a lag
FEWEST = 50  # frames of all chains below which nothing is fitted


def slowest(ensemble: Ensemble) -> Tica | None:
    """TICA at the longest lag that still sees a correlation; None where the run is too short for any."""
    features, best = ensemble.features(), None
    for lag in LAGS:
        if features.shape[1] < 10 * lag or features.shape[-1] == 0 or features.shape[0] * features.shape[1] < FEWEST:
            continue
        try:
            best = fit_tica(features, lag)
        except ValueError:
            return None
        if best.eigenvalues[0] > SEEN:
            break
    return best
