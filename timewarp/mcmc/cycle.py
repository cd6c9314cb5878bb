"""A mixture whose kernels take turns, each in one block of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from timewarp.mcmc.mixture import Mixture, Parts


@dataclass(frozen=True)
class Cycle(Mixture):
    """Makes steps of the first kernel, then of the second, up to the last, and begins anew.

    Which kernel moves depends on the number of steps so far alone, so the cycle leaves invariant what each kernel
    does. Blocks cost less than a draw at each step where a kernel has to look at states that another one led to, as a
    flow does that draws the path to each.

    Attributes:
        length: steps of one round; each kernel has its share of them by `weights`, and one at least.
    """

    length: int = 20

    @property
    def blocks(self) -> tuple[int, ...]:
        """Steps of each kernel in a round, in the order of `kernels`."""
        return shared(self.length, self.weights)

    def step(self, parts: Parts, rng: torch.Generator) -> tuple[Parts, dict[str, Any]]:
        """One step of the kernel whose turn it is."""
        blocks = self.blocks
        at = parts.turn % sum(blocks)
        return self.step_of(next(k for k, end in enumerate(accumulate(blocks)) if at < end), parts, rng)


def shared(length: int, weights: Sequence[float]) -> tuple[int, ...]:
    """`length` steps by weights, one at least for each; the first has what rounding leaves."""
    total = sum(weights)
    others = [max(1, round(length * weight / total)) for weight in weights[1:]]
    return max(1, length - sum(others)), *others
