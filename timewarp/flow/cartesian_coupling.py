"""One affine coupling of the Cartesian flow: one half of the latent scales and shifts the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from timewarp.flow.transformer import AtomTransformer


class Condition(NamedTuple):
    """What every coupling of one call shares: tokens known in advance, attention weights, the mask of real atoms."""

    known: Float[Tensor, "batch atoms known"]
    weights: Float[Tensor, "batch heads atoms atoms"]
    real: Bool[Tensor, "batch atoms 1"]


class Coupling(nn.Module):
    """z <- s(given; condition) * z + t(given; condition), with s = exp(cap * tanh(raw / cap)).

    Args:
        known: numbers an atom of the condition.
        given: channels of the half that conditions.
        moved: channels of the half that is transformed.
        cap: bound of |log s|.
        twin: scale and shift from a transformer each (published) or both from one.
        shape: the sizes of `AtomTransformer`.
    """

    def __init__(self, known: int, given: int, moved: int, *, cap: float, twin: bool, **shape: int):
        super().__init__()
        self.cap = cap
        outputs = (moved, moved) if twin else (2 * moved,)
        self.transformers = nn.ModuleList(AtomTransformer(known, given, out, **shape) for out in outputs)

    def forward(
        self, condition: Condition, given: Float[Tensor, "count batch atoms given"]
    ) -> tuple[Float[Tensor, "count batch atoms moved"], Float[Tensor, "count batch atoms moved"]]:
        """Log scale and shift of the moved half; both are 0 on padded atoms."""
        raw = torch.cat([net(condition.known, given, condition.weights) for net in self.transformers], -1)
        scale, shift = raw.masked_fill(~condition.real, 0.0).chunk(2, -1)
        return self.cap * torch.tanh(scale / self.cap), shift
