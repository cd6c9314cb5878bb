"""Attention with a bias for how far apart two tokens are; and the encoder of a molecule."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from timewarp.flow.tokens import FAR, FEATURES, Tokens


class Block(nn.Module):
    """Pre-norm attention and feed-forward; the bias [*, heads, queries, keys] holds the masks too."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Float[Tensor, "*batch tokens width"], bias: Tensor) -> Float[Tensor, "*batch tokens width"]:
        return self.step(x, bias, None)[0]

    def step(self, x: Tensor, bias: Tensor, past: tuple[Tensor, Tensor] | None):
        """As `forward`, for new tokens after those whose keys and values are in `past`; also the new past."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(-2, -4).unbind(-3)
        if past is not None:
            k, v = torch.cat([past[0], k], -2), torch.cat([past[1], v], -2)
        seen = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.mix(seen.transpose(-2, -3).flatten(-2))
        return x + self.feed(self.norm2(x)), (k, v)


def masked(bias: Tensor, real: Bool[Tensor, "*batch keys"]) -> Tensor:
    """The bias with -inf where a key is padding."""
    return bias.masked_fill(~real[..., None, None, :], -1e9)


class Encoder(nn.Module):
    """Atoms in their graph -> [*m, atoms, width]; run once a molecule, whatever the number of samples."""

    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.bias = nn.Embedding(FAR + 1, heads)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.leave = nn.LayerNorm(width)

    def forward(self, tokens: Tokens) -> Float[Tensor, "*m atoms width"]:
        x = self.enter(tokens.atoms)
        bias = masked(self.bias(tokens.hops).movedim(-1, -3), tokens.real)
        for block in self.blocks:
            x = block(x, bias)
        return self.leave(x)
