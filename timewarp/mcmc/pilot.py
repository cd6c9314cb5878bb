"""How often each kernel of a mixture should be picked: by how far it moves what moves least, for what it costs.

A pilot run notes the squared jumps of observables f under each kernel k, in units of what independent states would
jump, J_kf = E[(f(x') - f(x))^2] / (2 Var f): 1 for independent draws, 0 for a kernel that stays. The weights p are
those that get the slowest observable furthest for the cost,

    max_p min_f  sum_k p_k J_kf / sum_k p_k c_k,

the expected squared jump of Pasarica and Gelman (2010, Statistica Sinica 20) for a mixture. The pilot comes before the
first frame and the weights are frozen then, so that the chain is exact whatever it saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 5  # steps of each kernel from which on the pilot is believed
FIRST = (0.9, 0.75, 0.5, 0.25, 0.1)  # shares of the first kernel that are tried; the others are never without any
REST = (0.3, 0.5, 0.7)  # of the second, in what is left


class Pilot:
    """Sums over the steps of a pilot run of `kernels` kernels."""

    def __init__(self, kernels: int):
        self.steps = [0] * kernels
        self.cost = [0.0] * kernels
        self.jumps: list[Tensor | float] = [0.0] * kernels
        self.count, self.sum, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(
        self, kernel: int, before: Float[Tensor, "chains f"], after: Float[Tensor, "chains f"], cost: float
    ) -> None:
        """Note a step of `kernel`: its observables before and after it, and what it cost."""
        before, after = before.double(), after.double()
        self.steps[kernel] += 1
        self.cost[kernel] += cost
        self.jumps[kernel] = self.jumps[kernel] + (after - before).square().mean(0)
        self.count += len(after)
        self.sum = self.sum + after.sum(0)
        self.squares = self.squares + after.square().sum(0)

    @property
    def rates(self) -> list[float]:
        """What each kernel alone does for the observable that it moves least, for one unit of cost."""
        return [float(jump.min()) / cost for jump, cost in zip(*self._each(), strict=True)]

    def weights(self) -> tuple[float, ...] | None:
        """The best of the weights that are tried for two or three kernels; None where the pilot was too short."""
        if min(self.steps) < LEAST:
            return None
        jumps, costs = self._each()
        table, cost = torch.stack(jumps), torch.tensor(costs, dtype=torch.float64)

        def gain(weights: Sequence[float]) -> float:
            p = torch.tensor(weights, dtype=torch.float64)
            return float((p @ table).min() / (p @ cost))

        return max(_tried(len(self.steps)), key=gain)

    def _each(self) -> tuple[list[Tensor], list[float]]:
        mean = self.sum / self.count
        spread = (self.squares / self.count - mean.square()).clamp_min(1e-12)
        moving = spread > 1e-9  # what never changed says nothing of any kernel
        found = []
        for jump, steps in zip(self.jumps, self.steps, strict=True):
            each = torch.as_tensor(jump) / max(steps, 1) / (2 * spread)
            found.append(each[moving] if moving.any() else torch.zeros(1, dtype=torch.float64))
        return found, [cost / max(steps, 1) for cost, steps in zip(self.cost, self.steps, strict=True)]


def _tried(kernels: int) -> list[tuple[float, ...]]:
    if kernels == 2:
        return [(p, 1 - p) for p in FIRST]
    if kernels != 3:
        raise ValueError(f"expected a mixture of two or three kernels, got {kernels}")
    return [(p, (1 - p) * q, (1 - p) * (1 - q)) for p, q in product(FIRST, REST)]
