"""The published flow: p(x(t + lag), v' | x(t)) on Cartesian positions, as alternating affine couplings.

Klein et al. 2023, "Timewarp: Transferable acceleration of molecular dynamics by learning time-coarsened dynamics".
Calling a `Cartesian` with a condition gives a `CartesianTransition`, a distribution of states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from timewarp.flow.attention import kernel_weights
from timewarp.flow.cartesian_coupling import Condition, Coupling
from timewarp.state import State


@dataclass(frozen=True)
class CartesianConfig:
    """Sizes of the Cartesian flow; the defaults fit a laptop, `published` gives those of the paper.

    Attributes:
        features: numbers an atom that describe it (from the force field; the caller builds them).
        velocities: channels of the auxiliary velocities, 1 to 3; 3 is published.
        blocks: each is one coupling of the positions and one of the velocities.
        width: numbers an atom between the layers of a transformer.
        layers: rounds of attention in a transformer.
        value: numbers an atom in each head.
        feedforward: hidden width inside a layer.
        hidden: hidden width of a transformer's first and last MLP.
        lengths: lengths of the kernel attention in nm, one a head.
        twin: scale and shift come from a transformer each (published), or both from one.
        cap: bound of |log scale| of one coupling.
        residual: standard deviation of x(t + lag) - x(t) in nm that the flow starts from.
        feature_scales: the base scales depend on the atom's features; otherwise one for all atoms (published).
    """

    features: int
    velocities: int = 3
    blocks: int = 6
    width: int = 64
    layers: int = 2
    value: int = 16
    feedforward: int = 256
    hidden: int = 128
    lengths: tuple[float, ...] = (0.1, 0.2, 0.5, 0.7, 1.0, 1.2)
    twin: bool = False
    cap: float = 2.0
    residual: float = 0.1
    feature_scales: bool = False

    def __post_init__(self):
        object.__setattr__(self, "lengths", tuple(self.lengths))  # JSON gives a list
        if self.velocities not in (1, 2, 3):
            raise ValueError(
                f"expected 1 to 3 velocity channels for the Cartesian flow, got {self.velocities}; "
                "without velocities its couplings have nothing to couple with: use 3, or the internal chart"
            )
        if not self.lengths or min(self.lengths) <= 0:
            raise ValueError(f"expected positive attention lengths in nm, got {self.lengths}; give one a head")
        if min(self.residual, self.cap) <= 0:
            raise ValueError(
                f"expected positive residual and cap, got {self.residual} and {self.cap}; use the defaults"
            )

    @classmethod
    def published(cls, features: int = 32) -> CartesianConfig:
        """The dipeptide model of the paper: about 106 M parameters."""
        return cls(features, blocks=6, width=128, layers=6, value=128, feedforward=2048, hidden=256, twin=True)


class Cartesian(nn.Module):
    """The published flow with all its parts; at construction it is x' = x + residual * N(0, I), v' = N(0, I).

    Translations of x(t) move the output and permutations of atoms permute it. Rotations are not built in, as
    published: train on `randomly_rotated` data.
    """

    def __init__(self, config: CartesianConfig):
        super().__init__()
        self.config = c = config
        shape = {"width": c.width, "layers": c.layers, "heads": len(c.lengths), "value": c.value}
        shape |= {"feedforward": c.feedforward, "hidden": c.hidden}
        known = 3 + c.features

        def stack(given: int, moved: int) -> nn.ModuleList:
            return nn.ModuleList(
                Coupling(known, given, moved, cap=c.cap, twin=c.twin, **shape) for _ in range(c.blocks)
            )

        self.position = stack(c.velocities, 3)
        self.velocity = stack(3, c.velocities)
        self.log_scale = nn.Parameter(torch.tensor([math.log(c.residual), 0.0]))
        self.feature_scale = nn.Linear(c.features, 2, bias=False) if c.feature_scales else None
        if self.feature_scale is not None:
            nn.init.zeros_(self.feature_scale.weight)

    def forward(
        self,
        features: Float[Tensor, "*some atoms features"],
        positions: Float[Tensor, "batch atoms 3"],
        real: Bool[Tensor, "*mask atoms"] | None = None,
    ) -> CartesianTransition:
        """The distribution of the state one lag after `positions`.

        Args:
            features: description of each atom, of one molecule or of each in the batch.
            positions: the condition x(t) in nm.
            real: False on padded atoms; none are padded by default.

        Raises:
            ValueError: if the shapes or number types do not fit.
        """
        if positions.ndim != 3 or positions.shape[-1] != 3:
            raise ValueError(f"expected positions [batch, atoms, 3], got {list(positions.shape)}; add a batch axis")
        if positions.dtype != self.log_scale.dtype:
            raise ValueError(f"expected {self.log_scale.dtype} positions, got {positions.dtype}; convert one of them")
        batch, atoms, _ = positions.shape
        if features.shape[-2:] != (atoms, self.config.features):
            raise ValueError(
                f"expected features [*, {atoms}, {self.config.features}], got {list(features.shape)}; "
                "describe every atom with as many numbers as the flow was built for"
            )
        if real is None:
            real = torch.ones(atoms, dtype=torch.bool, device=positions.device)
        real = real.expand(batch, atoms)
        mask = real[..., None]
        start = torch.where(mask, positions, 0.0)
        centred = torch.where(mask, start - start.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1), 0.0)
        features = torch.where(mask, features.to(positions).expand(batch, -1, -1), 0.0)
        condition = Condition(
            torch.cat([centred, features], -1), kernel_weights(centred, real, self.config.lengths), mask
        )
        log_scale = self.log_scale.expand(batch, atoms, 2)
        if self.feature_scale is not None:
            log_scale = log_scale + self.feature_scale(features)
        return CartesianTransition(self, positions, condition, log_scale.masked_fill(~mask, 0.0))


@dataclass(frozen=True)
class CartesianTransition:
    """p(x', v' | x) for a batch of x. A padded atom has no density: it stays where it is, with velocity 0.

    | symbol | variable |
    |---|---|
    | z_x, z_v | z, v |
    | ln s, t | log_scale, shift of a coupling |
    | ln |d(x', v') / d(z_x, z_v)| | log_det |
    """

    flow: Cartesian
    positions: Float[Tensor, "batch atoms 3"]  # x(t)
    condition: Condition
    log_scale: Float[Tensor, "batch atoms 2"]  # of the base, for positions (nm) and velocities

    def log_prob(self, state: State) -> Float[Tensor, "*batch"]:
        """ln p of each state (in nm^-1 a coordinate); any axes may stand before those of the starts."""
        noise, log_det = self.pull(state)
        return self._base(noise) - log_det

    def sample(self, count: int, rng: torch.Generator) -> tuple[State, Float[Tensor, "count batch"]]:
        """`count` states from each start, with their ln p; gradients reach the flow and x(t) through both."""
        noise = self.noise(count, rng)
        state, log_det = self.push(noise)
        return state, self._base(noise) - log_det

    def noise(self, count: int, rng: torch.Generator) -> State:
        """`count` draws of N(0, I) for each start, 0 on padded atoms."""
        x, channels = self.positions, 3 + self.flow.config.velocities
        draw = torch.randn((count, *x.shape[:-1], channels), generator=rng, dtype=x.dtype, device=x.device)
        draw = draw.masked_fill(~self.condition.real, 0.0)
        return State(draw[..., :3], draw[..., 3:])

    def push(self, noise: State) -> tuple[State, Float[Tensor, "*batch"]]:
        """From N(0, I) to a state, with log_det = ln |d state / d noise| over the real atoms.

        The base scales act last, so that the couplings see numbers of order one; up to the first linear maps
        of the transformers this is the published base N(0, scale^2).
        """
        z, v = self._flat(noise.positions, 3), self._flat(noise.velocities, self.flow.config.velocities)
        log_det = self._base_log_det()
        for position, velocity in zip(self.flow.position, self.flow.velocity, strict=True):
            log_scale, shift = position(self.condition, v)
            z, log_det = z * log_scale.exp() + shift, log_det + log_scale.sum((-1, -2))
            log_scale, shift = velocity(self.condition, z)
            v, log_det = v * log_scale.exp() + shift, log_det + log_scale.sum((-1, -2))
        scale = self.log_scale.exp()
        positions, velocities = self.positions + scale[..., :1] * z, scale[..., 1:] * v
        state = State(positions.reshape(noise.positions.shape), velocities.reshape(noise.velocities.shape))
        return state, log_det.expand(z.shape[:2]).reshape(noise.positions.shape[:-2])

    def pull(self, state: State) -> tuple[State, Float[Tensor, "*batch"]]:
        """The noise that `push` maps to `state`, with the log_det of `push` there (not its inverse's)."""
        mask, inverse = self.condition.real, (-self.log_scale).exp()
        z = torch.where(mask, self._flat(state.positions, 3) - self.positions, 0.0) * inverse[..., :1]
        v = torch.where(mask, self._flat(state.velocities, self.flow.config.velocities), 0.0) * inverse[..., 1:]
        log_det = self._base_log_det()
        for position, velocity in zip(reversed(self.flow.position), reversed(self.flow.velocity), strict=True):
            log_scale, shift = velocity(self.condition, z)
            v, log_det = (v - shift) * (-log_scale).exp(), log_det + log_scale.sum((-1, -2))
            log_scale, shift = position(self.condition, v)
            z, log_det = (z - shift) * (-log_scale).exp(), log_det + log_scale.sum((-1, -2))
        noise = State(z.reshape(state.positions.shape), v.reshape(state.velocities.shape))
        return noise, log_det.expand(z.shape[:2]).reshape(state.positions.shape[:-2])

    def _flat(self, values: Tensor, channels: int) -> Tensor:
        batch, atoms, _ = self.positions.shape
        if values.shape[-3:] != (batch, atoms, channels):
            raise ValueError(
                f"expected states [*, {batch}, {atoms}, {channels}], got {list(values.shape)}; "
                "give one state, or a leading axis of them, for each start"
            )
        return values.reshape(-1, *values.shape[-3:])

    def _base_log_det(self) -> Float[Tensor, " batch"]:
        position, velocity = self.log_scale.sum(1).unbind(-1)
        return 3 * position + self.flow.config.velocities * velocity

    def _base(self, noise: State) -> Float[Tensor, "*batch"]:
        squares = noise.positions.square().sum((-1, -2)) + noise.velocities.square().sum((-1, -2))
        dimension = self.condition.real.sum((-1, -2), dtype=squares.dtype) * (3 + self.flow.config.velocities)
        return -0.5 * (squares + dimension * math.log(2 * math.pi))
