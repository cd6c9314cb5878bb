"""The internal flow: torsions one after another, then the stiff coordinates about their relaxed geometry.

p(x) = p(tau) p(z | tau) |d(tau, z)/dx| over shapes; the rigid-body pose is kept from the positions given. With
velocity channels, torsions, noise and velocities are coupled after they are drawn and before the noise is scaled
about the relaxed geometry of the coupled torsions, so that this geometry is needed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timewarp.flow.chart import InternalChart
from timewarp.flow.graph import Encoder
from timewarp.flow.growth import Growth
from timewarp.flow.pose import posed
from timewarp.flow.response import Response
from timewarp.flow.stiff import StiffNet, gaussian
from timewarp.flow.tokens import Tokens
from timewarp.flow.torsion import Curves, TorsionNet
from timewarp.flow.velocity import Coordinates, VelocityCouplings
from timewarp.state import Positions, State


@dataclass(frozen=True)
class InternalConfig:
    """Sizes of the networks; `velocities` is the number of auxiliary channels, 0 for none."""

    width: int = 96
    heads: int = 6
    encoder_layers: int = 4
    torsion_layers: int = 3
    stiff_width: int = 32
    stiff_heads: int = 4
    stiff_layers: int = 1
    harmonics: int = 12
    grid: int = 72
    velocities: int = 0
    velocity_width: int = 48
    velocity_heads: int = 4
    velocity_layers: int = 1
    velocity_blocks: int = 3

    def __post_init__(self):
        if self.velocities not in (0, 1, 2, 3):
            raise ValueError(f"expected 0 to 3 velocity channels for the internal flow, got {self.velocities}")


class Internal(nn.Module):
    """The networks, which know no molecule; `InternalProposal` binds them to one."""

    def __init__(self, config: InternalConfig = InternalConfig()):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.width, config.heads, config.encoder_layers)
        self.torsion = TorsionNet(config.width, config.heads, config.torsion_layers, config.harmonics, config.grid)
        self.stiff = StiffNet(config.stiff_width, config.stiff_heads, config.stiff_layers, config.width)
        shape = (config.velocity_blocks, config.velocity_width, config.velocity_heads, config.velocity_layers)
        self.velocity = VelocityCouplings(config.velocities, *shape, config.width) if config.velocities else None

    def log_prob(
        self,
        tokens: Tokens,
        torsions: Float[Tensor, "*m batch torsions"],
        turns: Float[Tensor, "*m batch atoms"],
        mean: Float[Tensor, "*m batch atoms 3"],
        noise: Float[Tensor, "*m batch atoms 3"],
        curves: Curves | None = None,
        velocities: Float[Tensor, "*m batch atoms channels"] | None = None,
        thin: int = 1,
    ) -> tuple[Float[Tensor, "*m batch"], Float[Tensor, "*m thinned"]]:
        """(ln p(tau), ln p(z | tau)) of a stack of molecules: the likelihood that is trained.

        With velocity channels the sum is ln p(tau, z, v), and its first part that of the uncoupled torsions.
        Without them the second part, which costs most and teaches least, may be that of every `thin`-th alone.
        """
        atoms = self.encoder(tokens)
        if self.velocity is None:
            mean, noise, turns = mean[..., ::thin, :, :], noise[..., ::thin, :, :], turns[..., ::thin, :]
            shift, scale = self.stiff(tokens, atoms, turns, mean)
            stiff = gaussian(noise, shift, scale, tokens.stiff.unsqueeze(-3))
            return self.torsion.log_prob(tokens, atoms, torsions, curves), stiff
        shift, scale = self.stiff(tokens, atoms, turns, mean)
        return self.parts(tokens, atoms, torsions, noise, velocities, shift, scale, curves)

    def parts(
        self,
        tokens: Tokens,
        atoms: Float[Tensor, "*m atoms known"],
        torsions: Float[Tensor, "*m batch torsions"],
        noise: Float[Tensor, "*m batch atoms 3"],
        velocities: Float[Tensor, "*m batch atoms channels"] | None,
        shift: Float[Tensor, "*m batch atoms 3"],
        scale: Float[Tensor, "*m batch atoms 3"],
        curves: Curves | None = None,
    ) -> tuple[Float[Tensor, "*m batch"], Float[Tensor, "*m batch"]]:
        """As `log_prob`, from encoded atoms and the `StiffNet`'s shift and log scale.

        The curves belong to torsions that no velocity has been coupled to; with velocity channels they are left out.
        """
        keep = tokens.stiff.unsqueeze(-3)
        if self.velocity is None:
            return self.torsion.log_prob(tokens, atoms, torsions, curves), gaussian(noise, shift, scale, keep)
        if velocities is None:
            raise ValueError(f"expected velocities of {self.config.velocities} channels, got none; draw them N(0, 1)")
        white = torch.where(keep, (noise - shift) * torch.exp(-scale), 0.0)
        before, log_det = self.velocity.pull(tokens, atoms, Coordinates(torsions, white, velocities))
        rest = self._base(tokens, before) - scale.sum((-1, -2)) - log_det
        return self.torsion.log_prob(tokens, atoms, before.torsions), rest

    def coupled(
        self, tokens: Tokens, atoms: Float[Tensor, "*m atoms known"], before: Coordinates
    ) -> tuple[Coordinates, Float[Tensor, "*m batch"]]:
        """Coordinates after the couplings, and ln p of noise and velocities there, given the torsions before."""
        assert self.velocity is not None
        after, log_det = self.velocity.push(tokens, atoms, before)
        return after, self._base(tokens, before) - log_det

    @staticmethod
    def _base(tokens: Tokens, at: Coordinates) -> Tensor:
        zero = at.noise.new_zeros(())
        real = tokens.real.unsqueeze(-2)[..., None]
        return gaussian(at.noise, zero, zero, tokens.stiff.unsqueeze(-3)) + gaussian(at.velocities, zero, zero, real)


@dataclass(frozen=True)
class InternalTransition:
    """The distribution of the shape, in the pose of `positions`; it does not depend on their shape."""

    proposal: InternalProposal
    positions: Float[Tensor, "batch atoms 3"]

    def log_prob(self, state: State) -> Float[Tensor, "*batch"]:
        """ln of the density of the shape (and velocities): over the volume of internal coordinates' positions."""
        flat = state.positions.reshape(-1, *state.positions.shape[-2:])
        velocities = state.velocities.reshape(len(flat), *state.velocities.shape[-2:])
        parts = [self.proposal.density(*part) for part in zip(flat.split(CHUNK), velocities.split(CHUNK), strict=True)]
        return torch.cat(parts).reshape(state.positions.shape[:-2])

    def sample(self, count: int, rng: torch.Generator) -> tuple[State, Float[Tensor, "count batch"]]:
        """`count` shapes for each pose, with their log densities; differentiable in the flow's parameters."""
        batch = len(self.positions)
        drawn, log_prob = self.proposal.draw(count * batch, rng)
        shapes, velocities = (t.unflatten(0, (count, batch)) for t in (drawn.positions, drawn.velocities))
        placed = posed(shapes, self.positions.expand_as(shapes), self.proposal.frame)
        return State(placed, velocities), log_prob.reshape(count, batch)


CHUNK = 512  # configurations that pass through the networks at once


class InternalProposal:
    """The flow bound to one molecule: memoryless.

    Args:
        flow: the networks.
        tokens: of the molecule.
        chart: of the molecule.
        response: relaxed stiff coordinates.
        growth: energies of what a torsion places; without it, and with velocity channels, they count as zero.
    """

    memoryless = True

    def __init__(
        self, flow: Internal, tokens: Tokens, chart: InternalChart, response: Response, growth: Growth | None = None
    ):
        self.flow, self.tokens, self.chart, self.response = flow, tokens, chart, response
        self.growth = None if flow.config.velocities else growth
        self.frame = chart.tree.order[:3]
        self._kept: tuple[tuple, Tensor] | None = None

    @property
    def channels(self) -> int:
        """Channels of the auxiliary velocities."""
        return self.flow.config.velocities

    def __call__(self, positions: Positions) -> InternalTransition:
        return InternalTransition(self, positions.reshape(-1, *positions.shape[-2:]))

    @property
    def atoms(self) -> Tensor:
        """The encoded atoms, kept while the encoder's weights stay as they are."""
        parameters = list(self.flow.encoder.parameters())
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return self.flow.encoder(self.tokens)
        weights = tuple((p.data_ptr(), p._version) for p in parameters)
        if self._kept is None or self._kept[0] != weights:
            self._kept = weights, self.flow.encoder(self.tokens)
        return self._kept[1]

    def draw(self, count: int, rng: torch.Generator) -> tuple[State, Float[Tensor, " count"]]:
        """Shapes in the chart's frame, and their log densities."""
        parts = [self._draw(min(CHUNK, count - start), rng) for start in range(0, count, CHUNK)]
        positions, velocities, log_prob = (torch.cat(part) for part in zip(*parts, strict=True))
        return State(positions, velocities), log_prob

    def _draw(self, count, rng):
        atoms, chart, device = self.atoms, self.chart, self.tokens.atoms.device
        shape = {"generator": rng, "device": rng.device, "dtype": chart.dtype}
        uniform = torch.rand(count, chart.torsions, **shape).to(device)
        white = torch.randn(count, chart.atoms, 3, **shape).to(device)
        velocities = torch.randn(count, chart.atoms, self.channels, **shape).to(device)
        torsions, log_prob = self.flow.torsion.sample(self.tokens, atoms, uniform, self.growth)
        if self.channels:
            before = Coordinates(torsions, torch.where(chart.stiff, white, 0.0), velocities)
            (torsions, white, velocities), rest = self.flow.coupled(self.tokens, atoms, before)
        mean, shift, scale = self.relaxed(atoms, torsions)
        noise = torch.where(chart.stiff, shift + scale.exp() * white, 0.0)
        if self.channels:
            log_prob = log_prob + rest - scale.sum((-1, -2))
        else:
            log_prob = log_prob + gaussian(noise, shift, scale, self.tokens.stiff)
        positions, log_det = chart.inverse(torsions, mean + noise[:, chart.stiff])
        return positions, velocities[:, chart.back], log_prob + log_det

    def density(
        self, positions: Float[Tensor, "batch atoms 3"], velocities: Float[Tensor, "batch atoms channels"]
    ) -> Float[Tensor, " batch"]:
        """ln p of shapes and velocities."""
        if velocities.shape[-1] != self.channels:
            raise ValueError(f"expected {self.channels} velocity channels, got {velocities.shape[-1]}")
        atoms = self.atoms
        torsions, stiff, log_det = self.chart.forward(positions)
        mean, shift, scale = self.relaxed(atoms, torsions)
        noise = self.laid(stiff - mean)
        placed = velocities[:, self.chart.tree.order]
        curves = self.growth.curves(torsions) if self.growth else None
        torsion, rest = self.flow.parts(self.tokens, atoms, torsions, noise, placed, shift, scale, curves)
        return torsion + rest + log_det

    def relaxed(self, atoms: Tensor, torsions: Float[Tensor, "batch torsions"]) -> tuple[Tensor, Tensor, Tensor]:
        """(mu(tau), shift, log scale) of the stiff coordinates; the last two in the places of their atoms."""
        mean = self.response(torsions)
        turns = self.chart.join(torsions, mean)[..., 2]
        shift, scale = self.flow.stiff(self.tokens, atoms, turns, self.laid(mean))
        return mean, shift, scale

    def laid(self, stiff: Float[Tensor, "batch stiffs"]) -> Float[Tensor, "batch atoms 3"]:
        """Stiff coordinates in the places of their atoms, zero elsewhere."""
        return laid(self.chart, stiff)


def laid(chart: InternalChart, stiff: Float[Tensor, "batch stiffs"]) -> Float[Tensor, "batch atoms 3"]:
    """Stiff coordinates in the places of their atoms, zero elsewhere."""
    out = stiff.new_zeros(*stiff.shape[:-1], chart.atoms * 3)
    out[..., chart.stiff.reshape(-1)] = stiff
    return out.unflatten(-1, (chart.atoms, 3))
