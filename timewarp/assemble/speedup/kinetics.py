"""How fast dynamics leaves each basin, from dynamics that begins at thermal frames: what MD is worth in the long run.

A chain of MD that is as short as a benchmark's hardly leaves its basin, and says little of how often it would. But the
effective sample size of a picosecond does not depend on who computes it: here many replicas run side by side, on the
batched potential, from frames of the reference, and are looked at some picoseconds later.

For the indicator of a basin of population p, whose values two looks apart differ in a share f of the replicas, the
correlation is rho = 1 - f / (2 p (1 - p)). The autocorrelation of a reversible process is a mean of decaying
exponentials; of all such means with this value after one look, the area below is least for a single one, as long as
rho is more than 1/e, and else for one of the time of a look beside a part that is forgotten at once. So the effective
sample size of the time of a look is -ln(rho) / 2 at most, or 1 / (2 e rho).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import e, inf, log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from timewarp.assemble.speedup.bound import CONFIDENCE
from timewarp.atomic import write_atomically
from timewarp.kernel import run
from timewarp.mcmc.dynamics import Langevin
from timewarp.state import Molecule, State

if TYPE_CHECKING:
    from timewarp.energy import Potential

REPLICAS, LOOKS, APART = 256, 4, 10.0  # ps
SEED = 20_26
# how many times as fast as here a picosecond of MD may be: 2 fs, 1/ps, hydrogens of 3 amu, no constraints. Kramers'
# rates grow with one over the friction at most, and lighter hydrogens hasten them a little
HASTENED = {"md-paper": 4.0, "md-2fs": 1.5, "md-tuned": 1.5}


@dataclass(frozen=True)
class Kinetics:
    """What was seen of dynamics at equilibrium.

    Attributes:
        apart: ps between looks.
        looks: pairs of looks, of all replicas.
        changes: of each basin, pairs of which one look is in it and the other is not.
    """

    apart: float
    looks: int
    changes: Mapping[str, int]

    @classmethod
    def of(
        cls,
        molecule: Molecule,
        potential: Potential,
        temperature: float,
        frames: np.ndarray,
        words: Callable[[np.ndarray], np.ndarray],
        seconds: float,
        looks: int = LOOKS,
        apart: float = APART,
    ) -> Kinetics:
        """Run dynamics from each of these frames.

        Args:
            molecule: whose potential it is.
            potential: U in kJ/mol and its gradient.
            temperature: K.
            frames: thermal configurations, nm, [replicas, atoms, 3].
            words: the basin of each configuration of [replicas, looks, atoms, 3].
            seconds: after which no further look is begun.
            looks: at most, after the first.
            apart: ps between them.
        """
        began, rng = time.monotonic(), torch.Generator().manual_seed(SEED)
        kernel = Langevin.of(molecule, potential, temperature, steps=max(1, round(apart / 0.002)))
        phase = kernel.init(State.at(torch.as_tensor(frames), 3, rng))
        seen = [phase.positions]
        for phase, _ in run(kernel, phase, looks, rng):  # noqa: B020
            seen.append(phase.positions)
            if time.monotonic() - began > seconds:
                break
        found = words(torch.stack(seen, 1).float().numpy())
        inside = {str(name): found == name for name in np.unique(found)}
        changes = {name: int((there[:, 1:] != there[:, :-1]).sum()) for name, there in inside.items()}
        return cls(apart, found[:, 1:].size, changes)

    def most(self, shares: Mapping[str, float]) -> float:
        """The effective sample size of a picosecond, of the slowest basin: more it is not, with `CONFIDENCE`.

        Args:
            shares: population of each basin that is looked at, or of the rest, whichever is smaller.
        """
        limits = [most_of(self.changes.get(name, 0), self.looks, share, len(shares)) for name, share in shares.items()]
        return min(limits, default=inf) / self.apart

    def encode(self) -> bytes:
        """What its file holds."""
        return (json.dumps(asdict(self)) + "\n").encode()

    @classmethod
    def kept(cls, path: Path, make: Callable[[], Kinetics]) -> Kinetics:
        """From a file, or made and put there; where it cannot be written, it is made each time."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            made = make()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, made.encode())
        except OSError:
            pass
        return made


def most_of(changes: int, looks: int, share: float, limits: int = 1) -> float:
    """The effective sample size of the time between two looks, at most; infinite where they are too far apart to tell.

    Args:
        changes: pairs of looks of which one is in the basin and the other is not.
        looks: all pairs.
        share: population of the basin.
        limits: how many such limits shall hold together.

    Raises:
        ValueError: if `share` is not between 0 and 1, or there are more changes than looks.
    """
    from scipy.stats import beta

    if not (0 < share < 1 and 0 <= changes <= looks):
        raise ValueError(f"expected a share within (0, 1) and 0 <= changes <= looks, got {share}, {changes}, {looks}")
    if changes == looks:
        return inf
    upper = float(beta.ppf(1 - (1 - CONFIDENCE) / limits, changes + 1, looks - changes))  # Clopper and Pearson
    rho = 1 - upper / (2 * share * (1 - share))
    if rho <= 0:
        return inf
    return -log(rho) / 2 if rho > 1 / e else 1 / (2 * e * rho)
