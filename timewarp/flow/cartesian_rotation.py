"""Random rotations: the published flow does not know that molecules turn, so its training data are turned instead."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def randomly_rotated(positions: Float[Tensor, "*axes atoms 3"], rng: torch.Generator) -> Float[Tensor, "*axes atoms 3"]:
    """The positions turned about the origin by a uniformly random rotation, one for each entry of the first axis.

    Stack a pair on the second axis ([batch, 2, atoms, 3]) and both of its ends turn together, as augmentation needs.
    A single configuration [atoms, 3] is turned once. Distances and handedness are kept.
    """
    count = positions.shape[0] if positions.ndim > 2 else 1
    draw = torch.randn(count, 4, generator=rng, dtype=positions.dtype, device=positions.device)
    w, x, y, z = (draw / draw.norm(dim=-1, keepdim=True)).unbind(-1)  # a uniform unit quaternion
    rows = (
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    )
    rotation = torch.stack(rows, -2)
    if positions.ndim == 2:
        return positions @ rotation[0].mT
    return (positions.flatten(1, -2) @ rotation.mT).view_as(positions)
