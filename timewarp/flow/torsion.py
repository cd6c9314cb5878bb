"""The free torsions, one after another: p(tau) = prod_t p(tau_t | those placed before it).

A causal transformer reads the torsions in placement order and gives each the Fourier coefficients of its log density
on the circle, added to the Boltzmann weight of its own torsion terms: untrained, it is that physics.
"""

from __future__ import annotations

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timewarp.flow.circular import Circular
from timewarp.flow.graph import Block
from timewarp.flow.tokens import FAR, HARMONICS, Tokens


class TorsionNet(nn.Module):
    """Args:
    width: of the tokens.
    heads: of the attention.
    layers: of the transformer.
    harmonics: of a conditional log density.
    grid: angles at which the density is tabulated; half of them are the spline's knots.
    """

    def __init__(self, width: int, heads: int, layers: int, harmonics: int = 12, grid: int = 72, hears: int = 4):
        super().__init__()
        self.hears = hears
        self.static = nn.Sequential(nn.Linear(4 * width + 2 * HARMONICS, width), nn.GELU(), nn.Linear(width, width))
        self.ask = nn.Linear(width, width)
        self.tell = nn.Sequential(nn.Linear(width + 2 * hears, width), nn.GELU(), nn.Linear(width, width))
        self.start = nn.Parameter(torch.zeros(width))
        self.bias = nn.Embedding(FAR + 2, heads)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        last = nn.Linear(width, 2 * harmonics)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        angle = torch.arange(grid) * (2 * pi / grid) - pi
        n = torch.arange(1, harmonics + 1)[:, None]
        self.register_buffer("waves", torch.cat([torch.cos(n * angle), torch.sin(n * angle)]), persistent=False)

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

    def slots(self, static: Tensor, told: Tensor) -> Tensor:
        return self.ask(static) + told

    def told(self, static: Tensor, angle: Tensor) -> Tensor:
        n = torch.arange(1, self.hears + 1, device=angle.device)
        phase = angle[..., None] * n
        heard = torch.cat([torch.cos(phase), torch.sin(phase)], -1)
        return self.tell(torch.cat([static.expand(*heard.shape[:-1], -1), heard], -1))

    def density(self, x: Tensor, energy: Tensor) -> Circular:
        return Circular(self.leave(x) @ self.waves - energy)

    def log_prob(self, tokens: Tokens, atoms: Tensor, torsions: Float[Tensor, "*m batch torsions"]) -> Tensor:
        """ln p(tau) of each configuration; [*m, batch]."""
        static, bias = self.context(tokens, atoms)
        static, bias = static.unsqueeze(-3), bias.unsqueeze(-4)
        told = self.told(static, torsions)
        first = self.start.expand(*told.shape[:-2], 1, -1)
        x = self.slots(static, torch.cat([first, told[..., :-1, :]], -2))
        for block in self.blocks:
            x = block(x, bias)
        each = self.density(x, tokens.torsion_energy.unsqueeze(-3)).log_prob(torsions)
        return torch.where(tokens.torsion_real.unsqueeze(-2), each, torch.zeros_like(each)).sum(-1)

    def sample(self, tokens: Tokens, atoms: Tensor, uniform: Float[Tensor, "batch torsions"]) -> tuple[Tensor, Tensor]:
        """(torsions, ln p) of one molecule, from uniform numbers in (0, 1); differentiable."""
        static, bias = self.context(tokens, atoms)
        batch, count = uniform.shape
        past: list = [None] * len(self.blocks)
        told = self.start.expand(batch, 1, -1)
        angles, total = [], uniform.new_zeros(batch)
        for t in range(count):
            x = self.slots(static[t].expand(batch, 1, -1), told)
            for b, block in enumerate(self.blocks):
                assert isinstance(block, Block)
                x, past[b] = block.step(x, bias[:, t : t + 1, : t + 1], past[b])
            angle, log_prob = self.density(x[:, 0], tokens.torsion_energy[t]).quantile(uniform[:, t])
            angles.append(angle)
            total = total + log_prob
            told = self.told(static[t].expand(batch, 1, -1), angle[:, None])
        return torch.stack(angles, -1) if angles else uniform, total
