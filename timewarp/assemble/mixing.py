"""Whether chains agree on where a molecule spends its time: in both halves, and whatever they started from.

A basin is a pair of free torsions, each in one of three sectors of 120 degrees that are cut where fewest frames are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.mcmc.ess import bulk_ess, rhat

CUTS = 12  # places where the sectors may begin, 10 degrees apart
WORST = 4.5  # standard errors: the largest of some hundred differences is seldom larger by chance
RHAT = 1.05


def mixing(
    torsions: Float[Tensor, "chains frames torsions"],
    energy: Float[Tensor, "chains frames"],
    start: Sequence[int] | None = None,
) -> dict[str, Any]:
    """How far the populations of the basins differ, and R-hat and effective sample size of the worst observable.

    Args:
        torsions: rad.
        energy: U/kT.
        start: what each chain began from, by a number; the chains of the first number are compared with the others.

    Returns:
        `halves` and `starts`, the largest difference of a population between the first and the second half of each
        chain and between the two sorts of starts (None without); `halves_error` and `starts_error`, that of the worst
        basin in standard errors, as far as the spread among chains tells them; `rhat` and `ess` of the worst among the
        energy and the sines and cosines of the torsions; `agree`, whether none of this says that more is needed. None
        where there are too few chains or frames to tell.
    """
    chains, frames, count = torsions.shape
    basins = _basins(torsions)
    half = frames // 2
    found: dict[str, Any] = {"halves": None, "halves_error": None, "starts": None, "starts_error": None}
    if count and half and chains > 3:
        first, second = (basins[:, part].mean(1) for part in (slice(0, half), slice(frames - half, None)))
        found["halves"], found["halves_error"] = _gap(first - second, None)
    if count and start is not None and chains > 3:
        these = torch.tensor([s == start[0] for s in start])
        if 2 <= int(these.sum()) <= chains - 2:
            each = basins.mean(1)
            found["starts"], found["starts_error"] = _gap(each[these], each[~these])
    series = [energy, *torsions.sin().unbind(-1), *torsions.cos().unbind(-1)]
    if frames >= 8 and chains >= 2:
        found["rhat"] = max(rhat(s.numpy()) for s in series)
        found["ess"] = min(bulk_ess(s.numpy()) for s in series)
    else:
        found["rhat"] = found["ess"] = None
    errors = [found[f"{name}_error"] for name in ("halves", "starts") if found[name] is not None]
    told = bool(errors) or not count
    mixed = found["rhat"] is not None and found["rhat"] < RHAT
    return found | {"agree": told and mixed and all(error < WORST for error in errors)}


def _gap(a: Float[Tensor, "chains basins"], b: Float[Tensor, "others basins"] | None) -> tuple[float, float]:
    """Largest difference of means (of `a` from 0 where b is None), and the largest one in standard errors."""
    parts = [a] if b is None else [a, b]
    gap = (parts[0].mean(0) - (parts[1].mean(0) if b is not None else 0.0)).abs()
    # the spread among few chains that all say nearly the same is not trusted to be smaller than one chain's worth
    error = sum(part.var(0) / len(part) + 0.25 / len(part) ** 3 for part in parts)
    return float(gap.max()), float((gap / error.sqrt()).max())  # type: ignore[union-attr]


def _basins(torsions: Float[Tensor, "chains frames torsions"]) -> Float[Tensor, "chains frames basins"]:
    """1 where a frame is in a basin."""
    letters = torch.stack([_sectors(t) for t in torsions.unbind(-1)], -1) if torsions.shape[-1] else None
    if letters is None:
        return torsions.new_zeros(*torsions.shape[:2], 0)
    pairs = list(combinations(range(letters.shape[-1]), 2)) or [(0, 0)]
    words = torch.stack([3 * letters[..., i] + letters[..., j] for i, j in pairs], -1)
    return (words[..., None] == torch.arange(9)).float().flatten(-2)


def _sectors(angle: Float[Tensor, "chains frames"]) -> Int[Tensor, "chains frames"]:
    width = 2 * torch.pi / (3 * CUTS)
    bins = (torch.remainder(angle, 2 * torch.pi) / width).long() % (3 * CUTS)
    counts = torch.bincount(bins.flatten(), minlength=3 * CUTS)
    near = counts + counts.roll(1)  # of both bins that meet at a cut
    offset = int(near.view(3, CUTS).sum(0).argmin())
    return torch.div((bins - offset) % (3 * CUTS), CUTS, rounding_mode="floor")
