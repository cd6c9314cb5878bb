"""The stiff coordinates given the torsions: Gaussians about the relaxed geometry, corrected by a small transformer.

The tokens are atoms with what they moved to relax; attention sees the graph. Untrained, it adds nothing: p(z | tau) =
N(mu(tau), I), the harmonic physics of the chart. It is worth a tenth of the acceptance, and covers the conformations
that do not relax; a larger one, that sees distances, cost as much as all else and was worth no more.
"""

from __future__ import annotations

from math import log, pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from timewarp.flow.graph import Block, masked
from timewarp.flow.tokens import FAR, Tokens


class StiffNet(nn.Module):
    """Gives a shift and a log scale to every stiff coordinate.

    Args:
        width: of the tokens.
        heads: of the attention.
        layers: of the transformer.
        known: width of the encoder's atoms.
    """

    def __init__(self, width: int, heads: int, layers: int, known: int):
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(known, width)
        self.hear = nn.Sequential(nn.Linear(5, width), nn.GELU(), nn.Linear(width, width))
        self.graph = nn.Embedding(FAR + 1, heads)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        last = nn.Linear(width, 6)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)
        for parameter in (last.weight, last.bias):
            nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tokens,
        atoms: Float[Tensor, "*m atoms known"],
        turns: Float[Tensor, "*m batch atoms"],
        mean: Float[Tensor, "*m batch atoms 3"],
    ) -> tuple[Tensor, Tensor]:
        """(shift, log scale), [*m, batch, atoms, 3].

        Args:
            tokens: of the molecules.
            atoms: from the encoder.
            turns: dihedral of each place.
            mean: relaxed stiff coordinates, zero where there is none.
        """
        x = self.enter(atoms).unsqueeze(-3)
        heard = torch.cat([mean, torch.sin(turns)[..., None], torch.cos(turns)[..., None]], -1)
        x = x + self.hear(heard)
        bias = masked(self.graph(tokens.hops).movedim(-1, -3).unsqueeze(-4), tokens.real.unsqueeze(-2))
        for block in self.blocks:
            x = block(x, bias)
        shift, scale = self.leave(x).chunk(2, -1)
        keep = tokens.stiff.unsqueeze(-3)
        return torch.where(keep, shift, 0.0), torch.where(keep, 0.7 * torch.tanh(scale / 0.7), 0.0)


def gaussian(noise: Tensor, shift: Tensor, log_scale: Tensor, real: Tensor) -> Float[Tensor, "*batch"]:
    """ln N(noise; shift, exp(log_scale)^2) over the real coordinates of [*batch, atoms, 3]."""
    z = (noise - shift) * torch.exp(-log_scale)
    each = -0.5 * z.square() - log_scale - 0.5 * log(2 * pi)
    return torch.where(real, each, torch.zeros_like(each)).sum((-2, -1))
