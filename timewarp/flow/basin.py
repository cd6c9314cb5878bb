"""The quadratic form about a relaxed geometry, and the bounds that its eigenvalues are kept in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LOW, HIGH = 0.3, 4.0  # of P relative to its mean: eigenvalues below are lifted, those above count by their logarithm
FLOOR = 0.1  # of the eigenvalues of what stands in for a curvature that has no root, relative to its diagonal


class Basin(NamedTuple):
    """The quadratic form about the relaxed geometry of some torsions, and where it is lopsided."""

    torsions: Float[Tensor, "count torsions"]
    mean: Float[Tensor, "count stiffs"]
    lower: Float[Tensor, "count soft soft"]
    axes: Float[Tensor, "count modes soft"]
    widths: Float[Tensor, "count modes 2"]

    @property
    def log_root(self) -> Float[Tensor, " count"]:
        """ln det of `lower`."""
        return self.lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def in_bounds(values: Tensor) -> Tensor:
    """Eigenvalues relative to the mean curvature: none below `LOW`, from `HIGH` on by their logarithm."""
    return torch.where(values > HIGH, HIGH + HIGH * (values / HIGH).clamp_min(1.0).log(), values).clamp_min(LOW)


def definite(matrix: Tensor) -> Tensor:
    """The matrix with eigenvalues below `FLOOR`, in units of its diagonal, lifted to it."""
    own = matrix.diagonal()
    scale = own.clamp_min(max(1e-3 * float(own.max()), 1e-12)).sqrt()  # one below zero sets no scale
    values, vectors = torch.linalg.eigh(matrix / (scale[:, None] * scale))
    return (vectors * values.clamp_min(FLOOR)) @ vectors.T * (scale[:, None] * scale)
