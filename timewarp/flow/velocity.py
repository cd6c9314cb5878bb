"""Auxiliary velocities of the internal flow: couplings between what the chart moves and channels that carry no energy.

Everything stands in placement order. Before the couplings torsions, whitened noise and velocities are independent;
each block moves the chart's coordinates given the velocities, then the velocities given those.

| symbol | variable |
|---|---|
| tau, a free torsion | torsions |
| e, the noise of the stiff coordinates, N(0, I) before | noise |
| v | velocities |
| tau <- tau + a(v), e <- exp(s(v)) e + t(v), then v <- exp(s'(tau, e)) v + t'(tau, e) | push |
| ln |d(tau, e, v)' / d(tau, e, v)| | log_det |
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timewarp.flow.geometry import wrap
from timewarp.flow.graph import Block, masked
from timewarp.flow.tokens import FAR, Tokens

CAP = 1.0  # bound of the log scale of one coupling


class Coordinates(NamedTuple):
    """What the couplings move; noise is 0 where no coordinate is stiff, velocities are 0 on padding."""

    torsions: Float[Tensor, "*batch torsions"]
    noise: Float[Tensor, "*batch atoms 3"]
    velocities: Float[Tensor, "*batch atoms channels"]


class AtomNet(nn.Module):
    """Numbers an atom from numbers an atom, by attention along the graph; zeros at construction.

    Args:
        given: numbers an atom that come in.
        out: numbers an atom that come out.
        width: of the tokens.
        heads: of the attention.
        layers: of the transformer.
        known: width of the encoder's atoms.
    """

    def __init__(self, given: int, out: int, width: int, heads: int, layers: int, known: int):
        super().__init__()
        self.enter = nn.Linear(known, width)
        self.hear = nn.Sequential(nn.Linear(given, width), nn.GELU(), nn.Linear(width, width))
        self.bias = nn.Embedding(FAR + 1, heads)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        last = nn.Linear(width, out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)

    def forward(
        self, tokens: Tokens, atoms: Float[Tensor, "*m atoms known"], given: Float[Tensor, "*m batch atoms given"]
    ) -> Float[Tensor, "*m batch atoms out"]:
        x = self.enter(atoms).unsqueeze(-3) + self.hear(given)
        bias = masked(self.bias(tokens.hops).movedim(-1, -3), tokens.real).unsqueeze(-4)
        for block in self.blocks:
            x = block(x, bias)
        return self.leave(x)


class VelocityCouplings(nn.Module):
    """Blocks of the two couplings; the identity at construction.

    Args:
        channels: of the velocities.
        blocks: how many times both couplings are made.
        width, heads, layers, known: of the conditioners, see `AtomNet`.
    """

    def __init__(self, channels: int, blocks: int, width: int, heads: int, layers: int, known: int):
        super().__init__()
        shape = (width, heads, layers, known)
        self.chart = nn.ModuleList(AtomNet(channels, 7, *shape) for _ in range(blocks))
        self.velocity = nn.ModuleList(AtomNet(5, 2 * channels, *shape) for _ in range(blocks))

    def push(
        self, tokens: Tokens, atoms: Float[Tensor, "*m atoms known"], at: Coordinates
    ) -> tuple[Coordinates, Float[Tensor, "*m batch"]]:
        """From independent coordinates to coupled ones, with the log_det of this map."""
        torsions, noise, v = at
        total = v.new_zeros(v.shape[:-2])
        for chart, velocity in zip(self.chart, self.velocity, strict=True):
            turn, log_scale, shift = self._chart(chart, tokens, atoms, v)
            torsions, noise = wrap(torsions + turn), noise * log_scale.exp() + shift
            total = total + log_scale.sum((-1, -2))
            log_scale, shift = self._velocity(velocity, tokens, atoms, torsions, noise)
            v, total = v * log_scale.exp() + shift, total + log_scale.sum((-1, -2))
        return Coordinates(torsions, noise, v), total

    def pull(
        self, tokens: Tokens, atoms: Float[Tensor, "*m atoms known"], at: Coordinates
    ) -> tuple[Coordinates, Float[Tensor, "*m batch"]]:
        """The coordinates that `push` maps here, with the log_det of `push` there (not its inverse's)."""
        torsions, noise, v = at
        total = v.new_zeros(v.shape[:-2])
        for chart, velocity in zip(reversed(self.chart), reversed(self.velocity), strict=True):
            log_scale, shift = self._velocity(velocity, tokens, atoms, torsions, noise)
            v, total = (v - shift) * (-log_scale).exp(), total + log_scale.sum((-1, -2))
            turn, log_scale, shift = self._chart(chart, tokens, atoms, v)
            torsions, noise = wrap(torsions - turn), (noise - shift) * (-log_scale).exp()
            total = total + log_scale.sum((-1, -2))
        return Coordinates(torsions, noise, v), total

    @staticmethod
    def _chart(net, tokens, atoms, v):
        raw = net(tokens, atoms, v)
        keep = tokens.stiff.unsqueeze(-3)
        log_scale = torch.where(keep, CAP * torch.tanh(raw[..., :3] / CAP), 0.0)
        shift = torch.where(keep, raw[..., 3:6], 0.0)
        places = tokens.torsion_atoms[..., 0].unsqueeze(-2).expand(*raw.shape[:-2], -1)
        turn = torch.where(tokens.torsion_real.unsqueeze(-2), raw[..., 6].gather(-1, places), 0.0)
        return turn, log_scale, shift

    @staticmethod
    def _velocity(net, tokens, atoms, torsions, noise):
        places = tokens.torsion_atoms[..., 0].unsqueeze(-2).expand(torsions.shape)
        real = tokens.torsion_real.unsqueeze(-2)
        around = [
            torch.zeros_like(noise[..., 0]).scatter_add(-1, places, torch.where(real, wave(torsions), 0.0))
            for wave in (torch.cos, torch.sin)
        ]
        raw = net(tokens, atoms, torch.cat([noise, torch.stack(around, -1)], -1))
        log_scale, shift = torch.where(tokens.real.unsqueeze(-2)[..., None], raw, 0.0).chunk(2, -1)
        return CAP * torch.tanh(log_scale / CAP), shift
