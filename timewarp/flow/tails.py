"""Long tails for coordinates that move a large part of a molecule.

A turn of a peptide bond carries all that hangs on it into other atoms' reach, so that far from the relaxed geometry the
energy is not the form that it is there; a ring of proline is at times all but flat, and what hangs on it follows. In
place of N(0, 1) these coordinates of the noise have Johnson's S_U distribution (Johnson 1949), which is as wide near
its middle and has tails that fall off far more slowly.

| symbol | variable |
|---|---|
| a ~ N(0, 1) -> x = d sinh(a/d), d = shape | lengthened |
| ln dx/da = ln cosh(a/d) | the second of the pairs |
"""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEVER, RING = 2.5, 1.5  # d of a peptide bond's turn, and of a saturated ring's pucker and what turns with it


def lengthened(
    noise: Float[Tensor, "count n"], which: Int[Tensor, " tails"], shape: Float[Tensor, " tails"]
) -> tuple[Float[Tensor, "count n"], Float[Tensor, " count"]]:
    """(e with long tails in the coordinates `which`, ln |d of it/de|) of e = `noise`."""
    long, log_slope = long_tailed(noise[:, which], shape)
    return noise.index_copy(1, which, long), log_slope.sum(1)


def shortened(
    noise: Float[Tensor, "count n"], which: Int[Tensor, " tails"], shape: Float[Tensor, " tails"]
) -> tuple[Float[Tensor, "count n"], Float[Tensor, " count"]]:
    """(e, the same) of e with long tails = `noise`: the inverse of `lengthened`."""
    short, log_slope = unstretched(noise[:, which], shape)
    return noise.index_copy(1, which, short), log_slope.sum(1)


def slope_before(
    slope: Float[Tensor, "count n"], noise: Float[Tensor, "count n"],
    which: Int[Tensor, " tails"], shape: Float[Tensor, " tails"],
) -> Float[Tensor, "count n"]:  # fmt: skip
    """d(f - ln |de'/de|)/de at e = `noise`, from `slope` = df/de', e' being `lengthened` e."""
    a = noise[:, which] / shape
    return slope.index_copy(1, which, slope[:, which] * torch.cosh(a) - torch.tanh(a) / shape)


def long_tailed(a: Float[Tensor, "*batch"], shape: float | Tensor) -> tuple[Tensor, Tensor]:
    """(x, ln dx/da) of a ~ N(0, 1), each by itself."""
    return shape * torch.sinh(a / shape), _log_cosh(a / shape)


def unstretched(x: Float[Tensor, "*batch"], shape: float | Tensor) -> tuple[Tensor, Tensor]:
    """(a, ln dx/da): the inverse of `long_tailed`."""
    a = torch.asinh(x / shape)
    return shape * a, _log_cosh(a)


def _log_cosh(a: Tensor) -> Tensor:
    return torch.logaddexp(a, -a) - log(2)
