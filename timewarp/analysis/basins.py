"""Metastable states by Ramachandran regions, their populations and free energies, with errors.

Regions are fixed boxes, so that they mean the same in every run and for every peptide. Phi of 150 to 180 degrees
belongs to the extended region, which reaches across 180.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from timewarp.analysis.dihedrals import is_cis
from timewarp.analysis.ensemble import Ensemble
from timewarp.units import kT

REGIONS = {
    "A": "alpha: phi < 0, psi -120 to 50",
    "B": "beta: phi 150 to 270, psi 50 to 240",
    "P": "polyproline II: phi -90 to 0, psi 50 to 240",
    "L": "left-handed alpha: phi 0 to 150, psi -50 to 120",
    "E": "left-handed extended: phi 0 to 150, other psi",
    "a": "first residue, which has no phi: psi -120 to 50",
    "b": "first residue, which has no phi: psi 50 to 240",
    "n": "last residue, which has no psi: phi < 0",
    "l": "last residue, which has no psi: phi 0 to 150",
    "c": "the letter after it is a residue behind a cis peptide bond",
}


class Population(NamedTuple):
    """Share of frames in a state, and its free energy against the most populated one (kJ/mol).

    Errors are one standard error; None where it cannot be told. `chains` counts the chains that visited it.
    """

    name: str
    share: float
    error: float | None
    free_energy: float
    free_energy_error: float | None
    chains: int


def regions(phi: Float[np.ndarray, "*frames"] | None, psi: Float[np.ndarray, "*frames"] | None) -> np.ndarray:
    """Letters of `REGIONS` for the phi and psi of one residue, in rad; either may be missing, not both.

    Raises:
        ValueError: if both are missing.
    """
    if phi is None and psi is None:
        raise ValueError("expected phi or psi of a residue, got neither")
    none = np.empty(0)
    first, second = np.degrees(none if phi is None else phi), np.degrees(none if psi is None else psi) % 360
    left, helical = (first >= 0) & (first < 150), (second < 50) | (second >= 240)
    if psi is None:
        return np.where(left, "l", "n")
    if phi is None:
        return np.where(helical, "a", "b")
    polyproline = (first >= -90) & (first < 0)
    right = np.where(helical, "A", np.where(polyproline, "P", "B"))
    return np.where(left, np.where((second < 120) | (second >= 310), "L", "E"), right)


def states(ensemble: Ensemble) -> np.ndarray:
    """The state of every frame, [chains, frames]: one letter a residue, in order; empty strings without phi and psi."""
    angles = {(d.kind, d.residue): ensemble.angles[..., i] for i, d in enumerate(ensemble.table)}
    order = list(dict.fromkeys(d.residue for d in ensemble.table))
    numbers = [n for n in order if ("phi", n) in angles or ("psi", n) in angles]
    words = np.full((ensemble.chains, ensemble.frames), "", dtype=f"<U{max(2 * len(numbers), 1)}")
    for number in numbers:
        before = ("omega", order[order.index(number) - 1]) if order.index(number) else None
        if before in angles:
            words = np.char.add(words, np.where(is_cis(angles[before]), "c", ""))
        words = np.char.add(words, regions(angles.get(("phi", number)), angles.get(("psi", number))))
    return words


def populations(
    words: np.ndarray, temperature: float, ess: Callable[[np.ndarray], float] | None = None
) -> list[Population]:
    r"""Populations of states, the largest first.

    The error is the larger of the standard error between chains and, with `ess`, the binomial error at the effective
    sample size of the state's indicator. Free energies take the error of ln(p_i / p_0) with the negative covariance
    of a multinomial: sigma^2 = (e_i / p_i)^2 + (e_0 / p_0)^2 + 2 / n, n the smaller effective size of the two.

    Args:
        words: state of every frame, [chains, frames].
        temperature: K.
        ess: bulk effective sample size of [chains, draws].
    """
    names, counts = np.unique(words, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rows, thermal = [], kT(temperature)
    for name, share in zip(names[order], counts[order] / max(words.size, 1), strict=True):
        inside = (words == name).astype(np.float64)
        error, size = _error(inside, float(share), ess)
        rows.append((str(name), float(share), error, size, int(inside.any(axis=1).sum())))
    result = []
    for name, share, error, size, chains in rows:
        spread: float | None = 0.0 if name == rows[0][0] else None
        if spread is None and error is not None:
            spread = thermal * log_ratio_error((share, error, size), rows[0][1:4])
        result.append(Population(name, share, error, thermal * float(np.log(rows[0][1] / share)), spread, chains))
    return result


def log_ratio_error(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Standard error of ln(p_1 / p_0), with the negative covariance of a multinomial; see `populations`.

    Args:
        one, other: (population, its standard error, effective size) of each.
    """
    (p, e, n), (q, f, m) = one, other
    return float(np.sqrt((e / p) ** 2 + (f / q) ** 2 + 2 / min(n, m)))


def _error(inside, share, ess):
    """Standard error of a population and the effective size that it stands for; None, 0 where it cannot be told."""
    candidates = []
    if len(inside) > 1:
        candidates.append(float(inside.mean(axis=1).std(ddof=1) / np.sqrt(len(inside))))
    if ess is not None and 0 < share < 1 and inside.shape[1] >= 4:
        size = float(ess(inside))
        size = size if np.isfinite(size) and size >= 1 else 1.0
        candidates.append(_binomial(share, size))
    if not candidates:
        return None, 0.0
    floor = _binomial(share, inside.size)  # no error is smaller than that of independent frames
    error = max(*candidates, floor)
    smoothed = (share * inside.size + 0.5) / (inside.size + 1)
    return error, max(smoothed * (1 - smoothed) / error**2, 1.0)


def _binomial(share, size):
    """Standard error of a share of `size` independent draws, not 0 at the ends (half a draw added to each side)."""
    smoothed = (share * size + 0.5) / (size + 1)
    return float(np.sqrt(smoothed * (1 - smoothed) / size))
