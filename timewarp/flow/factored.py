"""The internal flow without velocities as what it is: torsions, then a Gaussian of the stiff coordinates."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.internal import InternalProposal
from timewarp.kernel import Given
from timewarp.state import Positions


class FactoredInternal:
    """An `InternalProposal` of 0 velocity channels, in the coordinates (tau, z) of its chart.

    Raises:
        ValueError: if the flow has velocity channels, which couple the torsions to the rest.
    """

    def __init__(self, proposal: InternalProposal):
        if proposal.channels:
            raise ValueError(f"expected an internal flow without velocity channels, got {proposal.channels}")
        self.proposal, self.chart = proposal, proposal.chart

    @property
    def cost(self) -> int:
        """Energy evaluations that `draw` and `given` make for each configuration."""
        return self.proposal.response.steps

    def draw(self, count: int, rng: torch.Generator) -> Given:
        """Torsions drawn from q."""
        p = self.proposal
        shape = (count, self.chart.torsions)
        uniform = torch.rand(shape, generator=rng, device=rng.device, dtype=self.chart.dtype)
        atoms = p.atoms
        torsions, log_prob = p.flow.torsion.sample(p.tokens, atoms, uniform.to(p.tokens.atoms.device), p.growth)
        return self._given(atoms, torsions, log_prob)

    def given(self, positions: Positions) -> tuple[Given, Float[Tensor, "count stiffs"]]:
        """What `draw` says of the torsions of these positions; and z there."""
        p, atoms = self.proposal, self.proposal.atoms
        torsions, stiff, _ = self.chart.forward(positions)
        curves = p.growth.curves(torsions) if p.growth else None
        return self._given(atoms, torsions, p.flow.torsion.log_prob(p.tokens, atoms, torsions, curves)), stiff

    def place(self, torsions: Tensor, stiff: Tensor) -> tuple[Positions, Float[Tensor, " count"]]:
        """(positions in the chart's frame, ln |d(tau, z)/dx|)."""
        return self.chart.inverse(torsions, stiff)

    def slope(self, torsions: Tensor, stiff: Tensor) -> tuple[Float[Tensor, " count"], Float[Tensor, "count stiffs"]]:
        """(U/kT + ln |d(tau, z)/dx|, its gradient with respect to z)."""
        return self.proposal.response.slope(torsions, stiff)

    def _given(self, atoms: Tensor, torsions: Tensor, log_prob: Tensor) -> Given:
        mean, shift, scale = self.proposal.relaxed(atoms, torsions)
        keep = self.chart.stiff
        return Given(torsions, log_prob, mean + shift[:, keep], scale.exp()[:, keep])
