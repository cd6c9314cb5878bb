"""The free torsions, one after another: p(tau) = prod_t p(tau_t | those placed before it).

A causal transformer reads the torsions in placement order and gives each the Fourier coefficients of its log density
on the circle, added to the Boltzmann weight of its own torsion terms and, by shares that it learns too, to that of the
atoms that it places against those that stand (`Growth`): untrained, it is that physics.
"""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from timewarp.flow.circular import Circular
from timewarp.flow.graph import Block
from timewarp.flow.growth import ANGLES, CHANNELS, Growth
from timewarp.flow.tokens import FAR, HARMONICS, Tokens
from timewarp.flow.warmth import AS_TRAINED, Warmth

Curves = Float[Tensor, "*m batch torsions kinds angles"]


class Stump(NamedTuple):
    """The first torsions of some configurations, and which of these each draw grows on."""

    kept: Float[Tensor, "some kept"]
    rows: Int[Tensor, " batch"]


SHARES = (0.5, 0.3, 0.0, 0.0)  # of the curves, untrained: what comes later and what gives way softens them


class TorsionNet(nn.Module):
    """Args:
    width: of the tokens.
    heads: of the attention.
    layers: of the transformer.
    harmonics: of a conditional log density.
    grid: angles at which the density is tabulated; half of them are the spline's knots.
    """

    waves: Tensor
    coarse: Tensor

    def __init__(self, width: int, heads: int, layers: int, harmonics: int = 12, grid: int = 72, hears: int = 4):
        super().__init__()
        if grid != 2 * ANGLES:
            raise ValueError(f"expected a grid of {2 * ANGLES} angles, got {grid}")
        self.hears = hears
        self.static = nn.Sequential(nn.Linear(4 * width + 2 * HARMONICS, width), nn.GELU(), nn.Linear(width, width))
        self.ask = nn.Linear(width, width)
        self.tell = nn.Sequential(nn.Linear(width + 2 * hears, width), nn.GELU(), nn.Linear(width, width))
        self.start = nn.Parameter(torch.zeros(width))
        self.bias = nn.Embedding(FAR + 2, heads)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        felt, last = nn.Linear(width, width), nn.Linear(width, 2 * harmonics + CHANNELS)
        self.feel = nn.Sequential(nn.Linear(CHANNELS * 2 * HARMONICS, width), nn.GELU(), felt)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)
        for zero in (felt.weight, felt.bias, last.weight, last.bias):
            nn.init.zeros_(zero)
        with torch.no_grad():
            last.bias[-CHANNELS:] = torch.tensor(SHARES)
        angle = torch.arange(grid) * (2 * pi / grid) - pi
        self.register_buffer("waves", _waves(harmonics, angle), persistent=False)
        self.register_buffer("coarse", _waves(HARMONICS, angle[::2]).T / (2 * ANGLES), persistent=False)

    def context(self, tokens: Tokens, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """(a vector for each torsion [*m, torsions, width], attention bias [*m, heads, torsions, torsions])."""
        places = tokens.torsion_atoms.flatten(-2)[..., None]
        four = atoms.gather(-2, places.expand(*places.shape[:-1], atoms.shape[-1])).unflatten(-2, (-1, 4)).flatten(-2)
        static = self.static(torch.cat([four, tokens.torsion_features], -1))
        # slot s asks for torsion s and tells of torsion s - 1
        hops = torch.full_like(tokens.torsion_hops, FAR + 1)
        hops[..., 1:] = tokens.torsion_hops[..., :-1]
        bias = self.bias(hops).movedim(-1, -3)
        later = torch.ones(hops.shape[-2:], dtype=torch.bool, device=hops.device).triu(1)
        return static, bias.masked_fill(later, -1e9)

    def slots(self, static: Tensor, told: Tensor, curves: Tensor) -> Tensor:
        return self.ask(static) + told + self.feel((curves @ self.coarse).flatten(-2))

    def told(self, static: Tensor, angle: Tensor) -> Tensor:
        n = torch.arange(1, self.hears + 1, device=angle.device)
        phase = angle[..., None] * n
        heard = torch.cat([torch.cos(phase), torch.sin(phase)], -1)
        return self.tell(torch.cat([static.expand(*heard.shape[:-1], -1), heard], -1))

    def grid(self, x: Tensor, energy: Tensor, curves: Tensor) -> Tensor:
        """Unnormalised log density at the angles of the grid."""
        waves, shares = self.leave(x).split([len(self.waves), CHANNELS], -1)
        between = (curves + curves.roll(-1, -1)) / 2
        fine = torch.stack([curves, between], -1).flatten(-2)
        return waves @ self.waves - energy - (shares[..., None] * fine).sum(-2)

    def log_prob(
        self,
        tokens: Tokens,
        atoms: Tensor,
        torsions: Float[Tensor, "*m batch torsions"],
        curves: Curves | None = None,
        warmth: Warmth = AS_TRAINED,
        kept: int = 0,
    ) -> Tensor:
        """ln p(tau) of each configuration, [*m, batch], from the curves of its torsions (`Growth.curves`), or zeros.

        At a temperature T of `warmth`, each conditional is that of the net to the power 1 / T. With some torsions
        `kept` it is ln p of the others given these, the first.
        """
        if curves is None:
            curves = torsions.new_zeros(*torsions.shape, CHANNELS, ANGLES)
        static, bias = self.context(tokens, atoms)
        static, bias = static.unsqueeze(-3), bias.unsqueeze(-4)
        told = self.told(static, torsions)
        first = self.start.expand(*told.shape[:-2], 1, -1)
        x = self.slots(static, torch.cat([first, told[..., :-1, :]], -2), curves)
        for block in self.blocks:
            x = block(x, bias)
        grid = self.grid(x, tokens.torsion_energy.unsqueeze(-3), curves)
        real = tokens.torsion_real.unsqueeze(-2)[..., kept:]
        return _mixed(warmth, grid[..., kept:, :], torsions[..., kept:], real)

    def sample(
        self,
        tokens: Tokens,
        atoms: Tensor,
        uniform: Float[Tensor, "batch drawn"],
        growth: Growth | None = None,
        warmth: Warmth = AS_TRAINED,
        pick: Float[Tensor, " batch"] | None = None,
        stump: Stump | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(torsions, ln p) of one molecule, from uniform numbers in (0, 1); without `growth`, its curves count as 0.

        `pick`, uniform too, chooses the temperature of each draw where there are several. On a `stump` the torsions
        that it lacks are drawn, and ln p is theirs given those that it has.
        """
        static, bias = self.context(tokens, atoms)
        batch, count = len(uniform), len(static)
        kept, rows = stump or (uniform.new_zeros(batch, 0), torch.arange(batch, device=uniform.device))
        stands = kept.shape[1]
        temperature = warmth.picked(uniform.new_zeros(batch) if pick is None else pick)[:, None]
        past: list = [None] * len(self.blocks)
        told = self.start.expand(len(kept), 1, -1)
        placed = growth.begin(len(kept)) if growth else kept.new_zeros(len(kept))
        angles, grids = list(kept[rows].unbind(1)), []
        for t in range(count):
            if t == stands:
                told, placed = told[rows], placed[rows]
                past = [None if pair is None else tuple(part[rows] for part in pair) for pair in past]
            curve = growth.curve(t, placed) if growth else placed.new_zeros(len(placed), CHANNELS, ANGLES)
            x = self.slots(static[t].expand(len(told), 1, -1), told, curve[:, None])
            for b, block in enumerate(self.blocks):
                assert isinstance(block, Block)
                x, past[b] = block.step(x, bias[:, t : t + 1, : t + 1], past[b])
            if t < stands:
                angle = kept[:, t]
            else:
                grids.append(self.grid(x[:, 0], tokens.torsion_energy[t], curve))
                angle = Circular(grids[-1] / temperature).quantile(uniform[:, t - stands])[0]
                angles.append(angle)
            if growth:
                placed = growth.place(t, placed, angle)
            told = self.told(static[t].expand(len(told), 1, -1), angle[:, None])
        if not grids:
            return torch.stack(angles, -1) if angles else uniform, uniform.new_zeros(batch)
        torsions = torch.stack(angles, -1)
        real = tokens.torsion_real[stands:]
        return torsions, _mixed(warmth, torch.stack(grids, -2), torsions[:, stands:], real)


def _mixed(warmth: Warmth, grid: Tensor, torsions: Tensor, real: Tensor) -> Tensor:
    """ln p of torsions whose conditionals have these log densities, over the temperatures."""
    each = Circular(warmth.spread(grid)).log_prob(torsions.expand(len(warmth.temperatures), *torsions.shape))
    return warmth.joined(torch.where(real, each, torch.zeros_like(each)).sum(-1))


def _waves(harmonics: int, angle: Float[Tensor, " angles"]) -> Float[Tensor, "waves angles"]:
    n = torch.arange(1, harmonics + 1)[:, None]
    return torch.cat([torch.cos(n * angle), torch.sin(n * angle)])
