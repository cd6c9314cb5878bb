"""The internal flow: torsions one after another, then the stiff coordinates about their relaxed geometry.

p(x) = p(tau) p(z | tau) |d(tau, z)/dx| over shapes; the rigid-body pose is kept from the positions given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timewarp.flow.chart import InternalChart
from timewarp.flow.graph import Encoder
from timewarp.flow.pose import posed
from timewarp.flow.response import Response
from timewarp.flow.stiff import StiffNet, gaussian
from timewarp.flow.tokens import Tokens
from timewarp.flow.torsion import TorsionNet
from timewarp.state import Positions, State


@dataclass(frozen=True)
class InternalConfig:
    """Sizes of the networks."""

    width: int = 96
    heads: int = 6
    encoder_layers: int = 4
    torsion_layers: int = 3
    stiff_width: int = 48
    stiff_heads: int = 4
    stiff_layers: int = 2
    harmonics: int = 12
    grid: int = 72


class Internal(nn.Module):
    """The networks, which know no molecule; `InternalProposal` binds them to one."""

    def __init__(self, config: InternalConfig = InternalConfig()):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.width, config.heads, config.encoder_layers)
        self.torsion = TorsionNet(
            config.width, config.heads, config.torsion_layers, config.harmonics, config.grid
        )
        self.stiff = StiffNet(config.stiff_width, config.stiff_heads, config.stiff_layers, config.width)

    def log_prob(
        self,
        tokens: Tokens,
        torsions: Float[Tensor, "*m batch torsions"],
        turns: Float[Tensor, "*m batch atoms"],
        mean: Float[Tensor, "*m batch atoms 3"],
        noise: Float[Tensor, "*m batch atoms 3"],
        relaxed: Float[Tensor, "*m batch atoms 3"],
    ) -> tuple[Float[Tensor, "*m batch"], Float[Tensor, "*m batch"]]:
        """(ln p(tau), ln p(z | tau)) of a stack of molecules: the likelihood that is trained."""
        atoms = self.encoder(tokens)
        shift, scale = self.stiff(tokens, atoms, turns, mean, relaxed)
        stiff = gaussian(noise, shift, scale, tokens.stiff.unsqueeze(-3))
        return self.torsion.log_prob(tokens, atoms, torsions), stiff


@dataclass(frozen=True)
class InternalTransition:
    """The distribution of the shape, in the pose of `positions`; it does not depend on their shape."""

    proposal: InternalProposal
    positions: Float[Tensor, "batch atoms 3"]

    def log_prob(self, state: State) -> Float[Tensor, "*batch"]:
        """ln of the density of the shape with respect to the volume of internal coordinates' positions."""
        flat = state.positions.reshape(-1, *state.positions.shape[-2:])
        parts = [self.proposal.density(part) for part in flat.split(CHUNK)]
        return torch.cat(parts).reshape(state.positions.shape[:-2])

    def sample(self, count: int, rng: torch.Generator) -> tuple[State, Float[Tensor, "count batch"]]:
        """`count` shapes for each pose, with their log densities; differentiable in the flow's parameters."""
        batch = len(self.positions)
        shapes, log_prob = self.proposal.draw(count * batch, rng)
        shapes = shapes.reshape(count, batch, *shapes.shape[1:])
        return State.at(posed(shapes, self.positions, self.proposal.frame)), log_prob.reshape(count, batch)


CHUNK = 512  # configurations that pass through the networks at once


class InternalProposal:
    """The flow bound to one molecule: memoryless, without velocities.

    Args:
        flow: the networks.
        tokens: of the molecule.
        chart: of the molecule.
        response: relaxed stiff coordinates.
    """

    memoryless = True
    channels = 0

    def __init__(self, flow: Internal, tokens: Tokens, chart: InternalChart, response: Response):
        self.flow, self.tokens, self.chart, self.response = flow, tokens, chart, response
        self.frame = chart.tree.order[:3]

    def __call__(self, positions: Positions) -> InternalTransition:
        return InternalTransition(self, positions.reshape(-1, *positions.shape[-2:]))

    @cached_property
    def _frozen(self) -> Tensor:
        with torch.no_grad():
            return self.flow.encoder(self.tokens)

    @property
    def atoms(self) -> Tensor:
        return self.flow.encoder(self.tokens) if torch.is_grad_enabled() else self._frozen

    def draw(self, count: int, rng: torch.Generator) -> tuple[Positions, Float[Tensor, " count"]]:
        """Shapes in the chart's frame, and their log densities."""
        parts = [self._draw(min(CHUNK, count - start), rng) for start in range(0, count, CHUNK)]
        return torch.cat([x for x, _ in parts]), torch.cat([p for _, p in parts])

    def _draw(self, count, rng):
        atoms = self.atoms
        uniform = torch.rand(count, self.chart.torsions, generator=rng)
        xi = torch.randn(count, self.chart.atoms, 3, generator=rng)
        torsions, log_prob = self.flow.torsion.sample(self.tokens, atoms, uniform)
        mean, shift, scale = self._stiff(atoms, torsions)
        noise = torch.where(self.chart.stiff, shift + scale.exp() * xi, 0.0)
        log_prob = log_prob + gaussian(noise, shift, scale, self.tokens.stiff)
        positions, log_det = self.chart.inverse(torsions, mean + noise[:, self.chart.stiff])
        return positions, log_prob + log_det

    def density(self, positions: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """ln p of shapes."""
        atoms = self.atoms
        torsions, stiff, log_det = self.chart.forward(positions)
        mean, shift, scale = self._stiff(atoms, torsions)
        noise = self.laid(stiff - mean)
        log_prob = self.flow.torsion.log_prob(self.tokens, atoms, torsions)
        return log_prob + gaussian(noise, shift, scale, self.tokens.stiff) + log_det

    def _stiff(self, atoms, torsions):
        mean = self.response(torsions)
        turns, relaxed = relaxed_geometry(self.chart, torsions, mean)
        shift, scale = self.flow.stiff(self.tokens, atoms, turns, self.laid(mean), relaxed)
        return mean, shift, scale

    def laid(self, stiff: Float[Tensor, "batch stiffs"]) -> Float[Tensor, "batch atoms 3"]:
        """Stiff coordinates in the places of their atoms, zero elsewhere."""
        return laid(self.chart, stiff)


def laid(chart: InternalChart, stiff: Float[Tensor, "batch stiffs"]) -> Float[Tensor, "batch atoms 3"]:
    """Stiff coordinates in the places of their atoms, zero elsewhere."""
    out = stiff.new_zeros(*stiff.shape[:-1], chart.atoms * 3)
    out[..., chart.stiff.reshape(-1)] = stiff
    return out.unflatten(-1, (chart.atoms, 3))


def relaxed_geometry(chart: InternalChart, torsions: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """(dihedral of each place, positions in placement order) at the relaxed stiff coordinates."""
    internal = chart.join(torsions, mean)
    return internal[..., 2], chart.cartesian(internal)[..., chart.tree.order, :]
