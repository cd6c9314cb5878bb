"""What all methods of a peptide are judged against: the slow coordinates and the basins of its reference ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from timewarp.analysis.basins import states
from timewarp.analysis.ensemble import Ensemble
from timewarp.analysis.features import tica_features
from timewarp.analysis.tica import Tica
from timewarp.assemble.speedup.crossings import Crossings
from timewarp.assemble.yardstick import Yardstick

if TYPE_CHECKING:
    from mdtraj import Topology

SHARE = 0.01  # of the reference; a basin that has less is not asked for, nor one that a single half has been in


@dataclass(frozen=True)
class Sides:
    """The slowest coordinate cut in two: a chain is on a side once it is beyond the quarter of the way to the other.

    What lies between belongs to the side where the chain was last, so that turning back is no crossing.

    Attributes:
        low, high: the quarters of the way between the means of the sides.
        share: of the reference on the high side, by the cut that leaves the least variance within the sides.
        between: share of the variance of the coordinate's normal scores that lies between the sides. What is left is
            forgotten faster, so that the rank-normalised ESS is that of the sides divided by this.
    """

    low: float
    high: float
    share: float
    between: float = 1.0

    @classmethod
    def of(cls, slow: Float[np.ndarray, " frames"]) -> Sides:
        """Two means in one dimension."""
        from scipy.special import ndtri

        x = np.sort(slow)
        count = np.arange(1, len(x))
        left, total = np.cumsum(x)[:-1], x.sum()
        apart = (left / count - (total - left) / (len(x) - count)) ** 2 * count * (len(x) - count)
        cut = int(apart.argmax()) + 1
        low, high, share = float(x[:cut].mean()), float(x[cut:].mean()), 1 - cut / len(x)
        scores = ndtri((np.arange(len(x)) + 0.5) / len(x))
        between = share * (1 - share) * (scores[cut:].mean() - scores[:cut].mean()) ** 2 / scores.var()
        return cls(low + (high - low) / 4, high - (high - low) / 4, share, float(between))

    def crossings(self, slow: Float[np.ndarray, "chains frames"]) -> int:
        """How often the chains went from one side to the other, all together."""
        return sum(int((np.diff(side[side != 0]) != 0).sum()) for side in self.marks(slow))

    def last(self, slow: Float[np.ndarray, "chains frames"]) -> Float[np.ndarray, "chains 1"]:
        """Where each chain was when it was on a side last; between them, if it never was."""
        marks = self.marks(slow)
        latest = marks.shape[1] - 1 - (marks[:, ::-1] != 0).argmax(1)
        return np.take_along_axis(slow, latest[:, None], 1)

    def marks(self, slow: Float[np.ndarray, "chains frames"]) -> Int[np.ndarray, "chains frames"]:
        """-1 on the low side, 1 on the high one, 0 between them."""
        return np.where(slow <= self.low, -1, np.where(slow >= self.high, 1, 0))


@dataclass(frozen=True)
class Target:
    """A peptide's reference, as far as methods are judged by it.

    Attributes:
        topology: of the peptide.
        tica: slow coordinates on `tica_features`.
        shares, errors: population and standard error of each basin with at least `SHARE` that both halves have been in.
        doubtful: population of each basin that one half alone has found: a single ladder that stays may make it up.
        sides: of the slowest coordinate.
        timescale: of the slowest coordinate of Langevin dynamics (2 fs, 1/ps), in ps. TICA can only find it too short,
            but for statistics; None where it found none.
        facts: of the reference.
        dynamics: by method of MD, what the same dynamics does in equilibrium.
    """

    topology: Topology
    tica: Tica
    shares: Mapping[str, float]
    errors: Mapping[str, float]
    sides: Sides
    timescale: float | None
    facts: Mapping[str, Any]
    doubtful: Mapping[str, float] = field(default_factory=dict)
    dynamics: Mapping[str, Crossings] = field(default_factory=dict)

    @classmethod
    def of(cls, topology: Topology, reference: Yardstick, every: float) -> Target:
        """From a reference ensemble whose slow coordinates come from frames `every` ps apart."""
        words = states(Ensemble.of(topology, reference.positions))
        names, counts = np.unique(words, return_counts=True)
        effective = max(2.0, float(reference.facts.get("ess") or words.size / 10))
        shares, errors, doubtful = {}, {}, {}
        for name, share in zip(names.tolist(), (counts / words.size).tolist()):
            if share < SHARE:
                continue
            halves = (words == name).mean(axis=1)
            if not halves.all():
                doubtful[name] = share
                continue
            binomial = np.sqrt(share * (1 - share) / effective)
            shares[name], errors[name] = share, float(max(binomial, abs(halves[0] - halves[1]) / 2))
        slow = np.asarray(reference.tica(tica_features(topology, reference.positions)))[..., 0]
        timescale = float(reference.tica.timescales[0]) * every
        sides = Sides.of(slow.ravel())
        return cls(topology, reference.tica, shares, errors, sides, timescale or None, reference.facts, doubtful)

    def slow(self, positions: Float[np.ndarray, "*batch atoms 3"]) -> Float[np.ndarray, "*batch coordinates"]:
        """The slow coordinates of configurations in nm."""
        return np.asarray(self.tica(tica_features(self.topology, positions)), dtype=np.float64)

    def safe_share(self, basin: str) -> float:
        """The smaller of the population of a basin and of the rest, as small as it may be within two errors."""
        smaller = min(self.shares[basin], 1 - self.shares[basin])
        return max(smaller - 2 * self.errors[basin], smaller / 4)

    def words(self, positions: Float[np.ndarray, "chains frames atoms 3"]) -> np.ndarray:
        """The basin of each configuration, [chains, frames]."""
        return states(Ensemble.of(self.topology, positions))


def crossings(words: np.ndarray, basin: str) -> int:
    """How often the chains entered or left a basin, all together."""
    return int((np.diff((words == basin).astype(np.int8), axis=1) != 0).sum())
