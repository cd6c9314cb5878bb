"""One torsion anew, all others held: exact moves that need no learning, between whole proposals of the flow.

What a flow got wrong of a state is then paid for torsion by torsion, as by `Regrowth`, but in any order and with a law
that was not trained: the energy of the chart's mean geometry at angles all round, tempered, since stiff coordinates
give way, and warm, since what they gain by it is not known. They are drawn anew about each angle, so that a turn which
asks for other bends is as likely as it should be.

| symbol | variable |
|---|---|
| S(phi) of tau with its k-th angle at phi, and z where they relax from | curve |
| S', tempered: t + t ln(1 + (S - t)/t) above t, S from its least | tempered |
| q(phi) = (1 - f) exp(-S'/heat) / Z + f / 2 pi | law |
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.flow.basin import Basin
from timewarp.flow.circular import Circular
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.pair_curves import tempered
from timewarp.kernel import Given
from timewarp.state import Positions

ANGLES = 36  # all round
HEAT = 1.5  # of the law, in units of the target's temperature
FLOOR = 0.05  # f: no angle is hardly ever drawn
MOST = 1e6  # kT


class Turning(FactoredInternal):
    """A `Regrowing` proposal in which all torsions stay but one, the number of which is `kept - 1`.

    Whole torsions are drawn from the flow; its law has no part in the rest.
    """

    @property
    def cost(self) -> tuple[int, int]:
        """Energy evaluations for each configuration: of `given`, and of `placed`."""
        given, placed = super().cost
        return given + ANGLES, placed

    @property
    def parts(self) -> int:
        """Ways to choose the one."""
        return self.chart.torsions

    @torch.no_grad()
    def law(self, torsions: Float[Tensor, "chains torsions"], number: int) -> Float[Tensor, "chains angles"]:
        """ln q of one angle given the others, up to a constant, at `ANGLES` angles from -pi."""
        count, step = len(torsions), 2 * math.pi / ANGLES
        turned = torsions[:, None].repeat(1, ANGLES, 1)
        turned[..., number] = torch.arange(ANGLES, dtype=torsions.dtype, device=torsions.device) * step - math.pi
        flat = turned.flatten(0, 1)
        curve = self.proposal.stiff.response.value(flat, self.chart.start(flat)).view(count, ANGLES)
        curve = curve.to(torsions.dtype).nan_to_num(MOST, MOST, MOST).clamp_max(MOST)
        warm = torch.log_softmax(-tempered(curve - curve.amin(1, keepdim=True)) / HEAT, 1)
        return torch.logaddexp(warm + math.log(1 - FLOOR), torch.full_like(warm, math.log(FLOOR / ANGLES)))

    @torch.no_grad()
    def regrown(
        self, present: Float[Tensor, "chains torsions"], kept: int, rows: Int[Tensor, " count"], rng: torch.Generator
    ) -> Given:
        """The torsions of a present, the row of each draw, but for one that is drawn anew."""
        uniform = torch.rand(len(rows), generator=rng, device=rng.device, dtype=present.dtype).to(present.device)
        angle, log_prob = Circular(self.law(present, kept - 1)[rows]).quantile(uniform)
        torsions = present[rows].clone()
        torsions[:, kept - 1] = angle
        return Given(torsions, log_prob, self.proposal.stiff.at(torsions))

    @torch.no_grad()
    def given(self, positions: Positions, kept: int = 0) -> tuple[Given, Float[Tensor, "count noises"]]:
        """What `regrown`, or with 0 `draw`, says of the torsions of these positions; and e there."""
        if not kept:
            return super().given(positions)
        torsions, stiff, _ = self.chart.forward(positions)
        log_prob = Circular(self.law(torsions, kept - 1)).log_prob(torsions[:, kept - 1])
        given = Given(torsions, log_prob, self.proposal.stiff.at(torsions))
        return given, self.proposal.stiff.pull(Basin(*given.basin), stiff)[0]
