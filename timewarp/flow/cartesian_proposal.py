"""The Cartesian flow bound to one molecule, as the sampling kernels take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from timewarp.flow.cartesian import Cartesian, CartesianTransition


@dataclass(frozen=True)
class CartesianProposal:
    """A `Proposal`: positions [batch, atoms, 3] in nm of one molecule in, the distribution of the next state out.

    Attributes:
        flow: the flow.
        features: description of the molecule's atoms, in the order of the positions.
    """

    memoryless: ClassVar[bool] = False

    flow: Cartesian
    features: Float[Tensor, "atoms features"]

    @property
    def channels(self) -> int:
        """Channels of the auxiliary velocities."""
        return self.flow.config.velocities

    def __call__(self, positions: Float[Tensor, "batch atoms 3"]) -> CartesianTransition:
        """The transition from these positions."""
        return self.flow(self.features, positions)
