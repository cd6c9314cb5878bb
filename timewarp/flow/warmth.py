"""The temperatures at which a flow proposes: most draws as it was trained, some hotter.

A share of broader proposals is a defensive mixture (Hesterberg 1995): whatever the flow got wrong, a state's weight
under the mixture is at most that under its broadest part, over this part's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Warmth:
    """Args:
    temperatures: of every conditional of a draw, in units of that which the flow was trained at.
    shares: of the draws that are made at each; their sum is 1.

    Raises:
        ValueError: if a temperature or a share is not positive, or the shares are not as many or do not sum to 1.
    """

    temperatures: Sequence[float] = (1.0,)
    shares: Sequence[float] = (1.0,)

    def __post_init__(self):
        if not all(0 < value < inf for value in (*self.temperatures, *self.shares)):
            raise ValueError(f"expected positive temperatures and shares, got {self.temperatures}, {self.shares}")
        if len(self.temperatures) != len(self.shares) or abs(fsum(self.shares) - 1) > 1e-9:
            raise ValueError(f"expected a share for each temperature, 1 in all, got {self.temperatures}, {self.shares}")

    @property
    def mixed(self) -> bool:
        """Whether there is more than one temperature."""
        return len(self.temperatures) > 1

    def picked(self, uniform: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """A temperature for each number in [0, 1), in the measure of the shares."""
        return uniform.new_tensor(self.temperatures)[self._which(uniform)]

    def _which(self, uniform: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        steps = uniform.new_tensor(self.shares).cumsum(0)[:-1]
        return torch.searchsorted(steps, uniform.contiguous(), right=True)

    def spread(self, log_density: Float[Tensor, "*batch grid"]) -> Float[Tensor, "temperatures *batch grid"]:
        """Unnormalised log densities at each of the temperatures."""
        return torch.stack([log_density / t for t in self.temperatures])

    def joined(self, log_prob: Float[Tensor, "temperatures *batch"]) -> Float[Tensor, "*batch"]:
        """ln p of the mixture, from that at each temperature."""
        shares = log_prob.new_tensor(self.shares).log().reshape(-1, *[1] * (log_prob.dim() - 1))
        return torch.logsumexp(log_prob + shares, 0)


AS_TRAINED = Warmth()
DEFENSIVE = Warmth((1.0, 1.2, 1.5, 2.2), (0.75, 0.15, 0.07, 0.03))  # measured, see checkpoints/README.md
