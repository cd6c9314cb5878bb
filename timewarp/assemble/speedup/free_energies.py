"""Free-energy differences between basins, of chains against the reference, each with the error of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from timewarp.analysis.basins import Population, log_ratio_error, populations
from timewarp.mcmc.ess import bulk_ess
from timewarp.units import kT


def free_energies(
    words: np.ndarray, shares: Mapping[str, float], errors: Mapping[str, float], temperature: float
) -> list[dict[str, Any]]:
    r"""F of each basin of the reference less that of its most populated one, in kJ/mol, the most populated first.

    Standard errors are those of `populations`, the effective sizes those at which the errors would be binomial.

    Args:
        words: state of every frame, [chains, frames].
        shares, errors: population and standard error of each basin of the reference.
        temperature: K.

    Returns:
        for each basin but the first `basin`, `share` (of the reference), `free_energy`, `error`, `reference` and
        `reference_error`; None for the first two where the chains were never in it, or never in the first.
    """
    names = sorted(shares, key=lambda name: -shares[name])
    found = {row.name: row for row in populations(words, temperature, bulk_ess)}
    rows = []
    for name in names[1:]:
        theirs = _difference(shares[name], errors[name], shares[names[0]], errors[names[0]], temperature)
        ours = _between(found.get(name), found.get(names[0]), temperature)
        rows.append(
            {"basin": name, "share": shares[name], "free_energy": ours[0], "error": ours[1]}
            | {"reference": theirs[0], "reference_error": theirs[1]}
        )
    return rows


def _between(
    here: Population | None, first: Population | None, temperature: float
) -> tuple[float | None, float | None]:
    if here is None or first is None or here.error is None or first.error is None:
        return None, None
    return _difference(here.share, here.error, first.share, first.error, temperature)


def _difference(share, error, first, first_error, temperature: float) -> tuple[float, float]:
    """Free energy of a basin less that of the first, and its standard error."""
    each = [(p, e, p * (1 - p) / e**2 if e else np.inf) for p, e in ((share, error), (first, first_error))]
    return kT(temperature) * float(np.log(first / share)), kT(temperature) * log_ratio_error(*each)
