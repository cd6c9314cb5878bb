"""The internal flow without velocities as what it is: torsions, then noise that is carried to the stiff coordinates."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.flow.basin import Basin
from timewarp.flow.internal import InternalProposal
from timewarp.flow.torsion import Stump
from timewarp.kernel import Given, Placed
from timewarp.state import Positions


class FactoredInternal:
    """An `InternalProposal` of 0 velocity channels, in the coordinates (tau, e).

    Raises:
        ValueError: if the flow has velocity channels, which couple the torsions to the rest.
    """

    def __init__(self, proposal: InternalProposal):
        if proposal.channels:
            raise ValueError(f"expected an internal flow without velocity channels, got {proposal.channels}")
        self.proposal, self.chart = proposal, proposal.chart

    @property
    def cost(self) -> tuple[int, int]:
        """Energy evaluations for each configuration: of `draw` or `given`, and of `placed`."""
        at, push = self.proposal.stiff.cost
        return at, push + 1

    @property
    def asked(self) -> int:
        """Energy evaluations so far."""
        return self.proposal.asked

    @property
    def noises(self) -> int:
        """Coordinates e."""
        return self.chart.stiffs

    @property
    def parts(self) -> int:
        """Numbers of the first torsions that may stay."""
        return self.chart.torsions - 1

    def torsions(self, positions: Positions) -> Float[Tensor, "count torsions"]:
        """tau of these positions."""
        return self.chart.forward(positions)[0]

    def draw(self, count: int, rng: torch.Generator) -> Given:
        """Torsions drawn from q."""
        torsions, log_prob = self.proposal.torsions(count, rng)
        return Given(torsions, log_prob, self.proposal.stiff.at(torsions))

    def regrown(
        self, present: Float[Tensor, "chains torsions"], kept: int, rows: Int[Tensor, " count"], rng: torch.Generator
    ) -> Given:
        """Torsions of which the first are those of a present, and the others are drawn from q given these.

        Args:
            present: torsions of some configurations.
            kept: how many of them stay.
            rows: which of the configurations each draw grows on.
            rng: of the draws.
        """
        stump = Stump(present[:, :kept], rows)
        torsions, log_prob = self.proposal.torsions(len(rows), rng, stump)
        return Given(torsions, log_prob, self.proposal.stiff.at(torsions))

    def given(self, positions: Positions, kept: int = 0) -> tuple[Given, Float[Tensor, "count noises"]]:
        """What `draw`, or `regrown`, says of the torsions of these positions; and e there."""
        p = self.proposal
        torsions, stiff, _ = self.chart.forward(positions)
        given = Given(torsions, p.torsion_log_prob(torsions, kept), p.stiff.at(torsions))
        return given, p.stiff.pull(Basin(*given.basin), stiff)[0]

    def placed(self, given: Given, noise: Float[Tensor, "count noises"]) -> Placed:
        """Positions (in the chart's frame), U/kT and the volume of (tau, e); see `Factored`."""
        at, stretch, slope = self.proposal.stiff.evaluate(Basin(*given.basin), noise)
        return Placed(at.positions, at.energy.double(), (at.log_det - stretch).double(), slope)
