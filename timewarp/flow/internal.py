"""The internal flow: torsions one after another, then the stiff coordinates about their relaxed geometry.

p(x) = p(tau) p(z | tau) |d(tau, z)/dx| over shapes; the rigid-body pose is kept from the positions given. What is
learned is p(tau); `Stiff` knows p(z | tau), as the image of noise e. With velocity channels, torsions, noise and
velocities are coupled after they are drawn and before the noise is carried to z about the relaxed geometry of the
coupled torsions, so that this geometry is needed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timewarp.flow.chart import InternalChart
from timewarp.flow.graph import Encoder
from timewarp.flow.growth import Growth
from timewarp.flow.pose import posed
from timewarp.flow.stiff import Stiff, standard_normal
from timewarp.flow.tokens import Tokens
from timewarp.flow.torsion import Curves, Stump, TorsionNet
from timewarp.flow.velocity import Coordinates, VelocityCouplings
from timewarp.flow.warmth import AS_TRAINED, Warmth
from timewarp.state import Positions, State


@dataclass(frozen=True)
class InternalConfig:
    """Sizes of the networks; `velocities` is the number of auxiliary channels, 0 for none."""

    width: int = 96
    heads: int = 6
    encoder_layers: int = 4
    torsion_layers: int = 3
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
        shape = (config.velocity_blocks, config.velocity_width, config.velocity_heads, config.velocity_layers)
        self.velocity = VelocityCouplings(config.velocities, *shape, config.width) if config.velocities else None

    def log_prob(
        self,
        tokens: Tokens,
        torsions: Float[Tensor, "*m batch torsions"],
        curves: Curves | None = None,
        noise: Float[Tensor, "*m batch atoms 3"] | None = None,
        velocities: Float[Tensor, "*m batch atoms channels"] | None = None,
    ) -> dict[str, Float[Tensor, "*m batch"]]:
        """The parts of the likelihood that is trained, of a stack of molecules: `torsion`, ln p(tau).

        With velocity channels that is the part of the uncoupled torsions, and `rest` the other part of ln p(tau, e, v).
        """
        return self.parts(tokens, self.encoder(tokens), torsions, curves, noise, velocities)

    def parts(
        self,
        tokens: Tokens,
        atoms: Float[Tensor, "*m atoms known"],
        torsions: Float[Tensor, "*m batch torsions"],
        curves: Curves | None = None,
        noise: Float[Tensor, "*m batch atoms 3"] | None = None,
        velocities: Float[Tensor, "*m batch atoms channels"] | None = None,
    ) -> dict[str, Float[Tensor, "*m batch"]]:
        """As `log_prob`, from encoded atoms.

        The curves belong to torsions that no velocity has been coupled to; with velocity channels they are left out.
        """
        if self.velocity is None:
            return {"torsion": self.torsion.log_prob(tokens, atoms, torsions, curves)}
        if noise is None or velocities is None:
            raise ValueError(f"expected noise and velocities of {self.config.velocities} channels; draw them N(0, 1)")
        before, log_det = self.velocity.pull(tokens, atoms, Coordinates(torsions, noise, velocities))
        torsion = self.torsion.log_prob(tokens, atoms, before.torsions)
        return {"torsion": torsion, "rest": self._base(tokens, before) - log_det}

    def coupled(
        self, tokens: Tokens, atoms: Float[Tensor, "*m atoms known"], before: Coordinates
    ) -> tuple[Coordinates, Float[Tensor, "*m batch"]]:
        """Coordinates after the couplings, and ln p of noise and velocities there, given the torsions before."""
        assert self.velocity is not None
        after, log_det = self.velocity.push(tokens, atoms, before)
        return after, self._base(tokens, before) - log_det

    @staticmethod
    def _base(tokens: Tokens, at: Coordinates) -> Tensor:
        real = tokens.real.unsqueeze(-2)[..., None]
        return _normal(at.noise, tokens.stiff.unsqueeze(-3)) + _normal(at.velocities, real)


def _normal(values: Tensor, real: Tensor) -> Float[Tensor, "*batch"]:
    """ln N(0, 1) of the real ones of [*batch, atoms, numbers]."""
    each = -0.5 * (values.square() + log(2 * pi))
    return torch.where(real, each, torch.zeros_like(each)).sum((-2, -1))


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
        """`count` shapes for each pose, with their log densities; no gradient is kept."""
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
        stiff: p(z | tau), with the chart of the molecule.
        growth: energies of what a torsion places; without it, and with velocity channels, they count as zero.
        warmth: temperatures of the torsions' conditionals. Proposals that are too broad are refused more often, and
            leave no state so rarely visited that a chain which is there waits for thousands of them.

    Raises:
        ValueError: if there are velocity channels, and the warmth is not that of training.
    """

    memoryless = True

    def __init__(
        self,
        flow: Internal,
        tokens: Tokens,
        stiff: Stiff,
        growth: Growth | None = None,
        warmth: Warmth = AS_TRAINED,
    ):
        if flow.config.velocities and warmth != AS_TRAINED:
            raise ValueError(f"expected the temperature of training with velocity channels, got {warmth}")
        self.warmth = warmth
        self.flow, self.tokens, self.stiff, self.chart = flow, tokens, stiff, stiff.chart
        self.growth = None if flow.config.velocities else growth
        self.frame = self.chart.tree.order[:3]
        self._kept: tuple[tuple, Tensor] | None = None

    @property
    def channels(self) -> int:
        """Channels of the auxiliary velocities."""
        return self.flow.config.velocities

    @property
    def cost(self) -> int:
        """Energy evaluations, with gradient, of a draw or a density of one configuration; some take more."""
        return sum(self.stiff.cost)

    @property
    def asked(self) -> int:
        """Energy evaluations that draws and densities have taken so far."""
        return self.stiff.response.asked

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

    @torch.no_grad()
    def draw(self, count: int, rng: torch.Generator) -> tuple[State, Float[Tensor, " count"]]:
        """Shapes in the chart's frame, and their log densities; gradients are those of `density`."""
        parts = [self._draw(min(CHUNK, count - start), rng) for start in range(0, count, CHUNK)]
        positions, velocities, log_prob = (torch.cat(part) for part in zip(*parts, strict=True))
        return State(positions, velocities), log_prob

    def torsions(
        self, count: int, rng: torch.Generator, stump: Stump | None = None
    ) -> tuple[Tensor, Float[Tensor, " count"]]:
        """(tau drawn from p, ln p(tau)), without the couplings; on a stump, ln p of what it lacks given what it has."""
        device, kept = self.tokens.atoms.device, stump.kept.shape[1] if stump else 0

        def numbers(*shape: int) -> Tensor:
            return torch.rand(shape, generator=rng, device=rng.device, dtype=self.chart.dtype).to(device)

        pick = numbers(count) if self.warmth.mixed else None
        uniform = numbers(count, self.chart.torsions - kept)
        flow = self.flow.torsion
        return flow.sample(self.tokens, self.atoms, uniform, self.growth, self.warmth, pick, stump)

    def torsion_log_prob(self, torsions: Float[Tensor, "batch torsions"], kept: int = 0) -> Float[Tensor, " batch"]:
        """ln p(tau), without the couplings; of all but the first `kept`, given these."""
        curves = self.growth.curves(torsions) if self.growth else None
        return self.flow.torsion.log_prob(self.tokens, self.atoms, torsions, curves, self.warmth, kept)

    def _draw(self, count, rng):
        atoms, chart, device = self.atoms, self.chart, self.tokens.atoms.device
        shape = {"generator": rng, "device": rng.device, "dtype": chart.dtype}
        torsions, log_prob = self.torsions(count, rng)
        noise = torch.randn(count, chart.stiffs, **shape).to(device)
        velocities = torch.randn(count, chart.atoms, self.channels, **shape).to(device)
        if self.channels:
            before = Coordinates(torsions, laid(chart, noise), velocities)
            (torsions, after, velocities), rest = self.flow.coupled(self.tokens, atoms, before)
            log_prob, noise = log_prob + rest, after[:, chart.stiff]
        else:
            log_prob = log_prob + standard_normal(noise)
        stiff, stretch = self.stiff.push(self.stiff.at(torsions), noise)
        positions, log_det = chart.inverse(torsions, stiff)
        return positions, velocities[:, chart.back], log_prob + log_det - stretch

    def density(
        self, positions: Float[Tensor, "batch atoms 3"], velocities: Float[Tensor, "batch atoms channels"]
    ) -> Float[Tensor, " batch"]:
        """ln p of shapes and velocities."""
        if velocities.shape[-1] != self.channels:
            raise ValueError(f"expected {self.channels} velocity channels, got {velocities.shape[-1]}")
        torsions, stiff, log_det = self.chart.forward(positions)
        noise, stretch = self.stiff.pull(self.stiff.at(torsions), stiff)
        if self.channels:
            placed = velocities[:, self.chart.tree.order]
            parts = self.flow.parts(self.tokens, self.atoms, torsions, None, laid(self.chart, noise), placed)
            log_prob = parts["torsion"] + parts["rest"]
        else:
            log_prob = self.torsion_log_prob(torsions) + standard_normal(noise)
        return log_prob + log_det - stretch


def laid(chart: InternalChart, stiff: Float[Tensor, "batch stiffs"]) -> Float[Tensor, "batch atoms 3"]:
    """Stiff coordinates in the places of their atoms, zero elsewhere."""
    out = stiff.new_zeros(*stiff.shape[:-1], chart.atoms * 3)
    out[..., chart.at_stiff] = stiff
    return out.unflatten(-1, (chart.atoms, 3))
