"""The rigid-body pose: where the first three atoms of the chart are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.state import Positions


def axes(positions: Positions, frame: Int[Tensor, " three"]) -> tuple[Float[Tensor, "*batch 3"], Tensor]:
    """(origin, rotation matrix whose columns are the axes) of the frame that three atoms span."""
    a, b, c = (positions[..., frame[k], :] for k in range(3))
    x = b - a
    x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    y = c - a
    y = y - (y * x).sum(-1, keepdim=True) * x
    y = y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    return a, torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def posed(
    shapes: Float[Tensor, "*#batch atoms 3"], positions: Float[Tensor, "*#batch atoms 3"], frame: Int[Tensor, " three"]
) -> Positions:
    """`shapes` moved so that their frame atoms lie in the frame of `positions`; the batches broadcast."""
    origin, rotation = axes(shapes, frame)
    to_origin, to_rotation = axes(positions, frame)
    turn = to_rotation @ rotation.transpose(-1, -2)
    return (shapes - origin[..., None, :]) @ turn.transpose(-1, -2) + to_origin[..., None, :]
