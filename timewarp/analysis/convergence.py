"""The verdict on a run: converged or not, with the reasons in plain sentences.

Thresholds are those of Vehtari, Gelman, Simpson, Carpenter and Buerkner 2021 (Bayesian Analysis 16, 667): at least
four chains, R-hat below 1.01 and an effective sample size of 100 a chain for every observable that matters. Chains
that disagree refute convergence; chains that agree do not prove it: a state that none of them visited is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

RHAT = 1.01
ESS_PER_CHAIN = 100
CHAINS = 4
NAMED = 3  # reasons of one sort that are spelled out; the rest is counted

Diagnostic = Callable[[np.ndarray], float]


def verdict(
    observables: Mapping[str, np.ndarray],
    *,
    ess: Diagnostic,
    rhat: Diagnostic,
    acceptance: Sequence[float] | None = None,
    exact: bool = True,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """Judge whether averages over these chains can be trusted.

    Args:
        observables: values by name, [chains, draws] or [chains, draws, k]; of k components (sine and cosine of an
            angle) the worst counts.
        ess: bulk effective sample size of [chains, draws].
        rhat: rank-normalised split R-hat of [chains, draws].
        acceptance: share of accepted moves of each chain, where there are moves.
        exact: false for samplers that are biased by design, which no number of draws cures.
        also: further reasons not to trust them, from what these observables do not show.

    Returns:
        What `report.json` keeps: `ess` (by name, and `min`; 0 where it is undefined), `rhat` (by name, and `max`; None
        where it is undefined), `verdict` and `reasons` (empty if converged).
    """
    sizes, mixing, trouble = {}, {}, []
    chains = 0
    for name, values in observables.items():
        values = np.asarray(values, dtype=np.float64)
        if values.ndim not in (2, 3):
            raise ValueError(f"expected {name} as [chains, draws] or [chains, draws, k], got shape {values.shape}")
        chains = values.shape[0]
        parts = [values] if values.ndim == 2 else list(np.moveaxis(values, -1, 0))
        sizes[name], mixing[name], problem = _worst(parts, ess, rhat)
        if problem:
            trouble.append(f"{name} {problem}")
    needed = ESS_PER_CHAIN * max(chains, CHAINS)
    reasons = [] if exact else ["the sampler is biased by design, so no number of samples makes it exact"]
    reasons += also
    if not observables:
        reasons.append("nothing was observed")
    if observables and chains < CHAINS:
        reasons.append(f"fewer than four chains ({chains}), so mixing cannot be judged")
    for i, rate in enumerate([] if acceptance is None else acceptance):
        if not rate > 0:
            reasons.append(f"acceptance is 0 in chain {i}")
    reasons += _shortened(trouble)
    slow = sorted((v, k) for k, v in mixing.items() if v is not None and v >= RHAT)[::-1]
    reasons += _shortened([f"R-hat of {k} is {_above(v)}, above {RHAT}" for v, k in slow])
    few = sorted((v, k) for k, v in sizes.items() if 0 < v < needed)
    reasons += _shortened([f"ESS of {k} is {math.floor(v)}, below {needed}" for v, k in few])
    known = [v for v in mixing.values() if v is not None]
    return {
        "ess": sizes | {"min": min(sizes.values(), default=0.0)},
        "rhat": mixing | {"max": max(known) if known and len(known) == len(mixing) else None},
        "verdict": "not converged" if reasons else "converged",
        "reasons": reasons,
    }


def _worst(parts, ess, rhat):
    """Smallest ESS and largest R-hat over the components, and what is wrong with the draws themselves."""
    if not all(np.isfinite(part).all() for part in parts):
        return 0.0, None, "has values that are not finite"
    if parts[0].shape[1] < 4:
        return 0.0, None, "has fewer than 4 draws a chain, too few for any statistics"
    stuck = np.flatnonzero(np.all([np.ptp(part, axis=1) == 0 for part in parts], axis=0))
    if len(stuck) == len(parts[0]):
        return 0.0, None, "never changed in any chain"
    sizes, mixing = [float(ess(part)) for part in parts], [float(rhat(part)) for part in parts]
    size = min(sizes) if all(map(math.isfinite, sizes)) else 0.0
    mixed = max(mixing) if all(map(math.isfinite, mixing)) else None
    if len(stuck):
        return size, mixed, f"never changed in chain{'s' * (len(stuck) > 1)} {', '.join(map(str, stuck[:NAMED]))}"
    return size, mixed, None if size and mixed is not None else "has an undefined ESS or R-hat"


def _shortened(reasons):
    return (
        reasons if len(reasons) <= NAMED + 1 else [*reasons[:NAMED], f"and {len(reasons) - NAMED} more like the last"]
    )


def _above(value):
    """A number with as many digits as show that it is above the threshold."""
    return f"{value:.2f}" if value >= RHAT + 0.005 else f"{value:.4f}"
