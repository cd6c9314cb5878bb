"""Kernel self-attention: atoms attend to one another by their distance in the conditioning positions.

The weights know nothing of the tokens, so `kernel_weights` is called once a condition and its result is handed
to every `KernelAttention` of the flow.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def kernel_weights(
    positions: Float[Tensor, "*batch atoms 3"],
    real: Bool[Tensor, "*batch atoms"],
    lengths: tuple[float, ...],
) -> Float[Tensor, "*batch heads atoms atoms"]:
    """Attention weights w_ij ∝ exp(-|x_i - x_j|^2 / l^2), normalised over the real j, one head a length l.

    Klein et al. 2023 (Timewarp), the kernel self-attention of section 4. A padded j has weight exactly 0.

    Args:
        positions: conditioning positions in nm.
        real: False on padded atoms.
        lengths: the length l of each head in nm.
    """
    squared = (positions[..., :, None, :] - positions[..., None, :, :]).square().sum(-1)
    inverse = torch.tensor([length**-2 for length in lengths], dtype=positions.dtype, device=positions.device)
    logits = -squared[..., None, :, :] * inverse[:, None, None]
    return torch.softmax(logits.masked_fill(~real[..., None, None, :], torch.finfo(logits.dtype).min), -1)


class KernelAttention(nn.Module):
    """Multi-head attention with given weights: values linear a head, the heads mixed linearly.

    Args:
        width: numbers an atom, in and out.
        heads: as many as there are lengths.
        value: numbers an atom in each head.
    """

    def __init__(self, width: int, heads: int, value: int):
        super().__init__()
        self.heads = heads
        self.values = nn.Linear(width, heads * value, bias=False)
        self.mix = nn.Linear(heads * value, width)

    def forward(
        self,
        tokens: Float[Tensor, "count batch atoms width"],
        weights: Float[Tensor, "batch heads atoms atoms"],
    ) -> Float[Tensor, "count batch atoms width"]:
        """Mix the tokens of each molecule by the weights of its condition, shared by all `count` of them."""
        values = self.values(tokens).unflatten(-1, (self.heads, -1))
        return self.mix(torch.einsum("bhij,cbjhd->cbihd", weights, values).flatten(-2))
