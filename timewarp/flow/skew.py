"""Two widths for a direction of the noise: a wall on one side, room on the other.

A contact stops a stiff coordinate on one side alone, so that its law is lopsided: in place of N(0, 1) along a unit
vector u of the noise, the two-piece normal (Fechner 1897) of widths l and r, reached through its quantiles. What stops
it, or gives way, far from the relaxed geometry is not what does near it, so that its tails are long (`tails`).

| symbol | variable |
|---|---|
| u, orthonormal, or 0 | axes |
| l, r, in units of the normal that is replaced | widths |
| a = u . e | along |
| t = d sinh(a/d), d = `SHAPE` | long |
| h: t -> x, with 2/(l + r) phi(x/l or x/r) dx = phi(t) dt | lopsided |
| e' = e + sum (h(t) - a) u | skewed |
| sum ln dh/da | the second of the pairs |
"""

from __future__ import annotations

from math import log, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.flow.tails import long_tailed, unstretched

SHAPE = 2.0  # d
TAIL = 20.0  # widths from the peak, whence h goes on as a line: no quantile is known so far out

Widths = Float[Tensor, "*batch 2"]


def skewed(
    noise: Float[Tensor, "count n"], axes: Float[Tensor, "count modes n"], widths: Float[Tensor, "count modes 2"]
) -> tuple[Float[Tensor, "count n"], Float[Tensor, " count"]]:
    """(e', ln |de'/de|) of e = `noise`."""
    return _along(noise, axes, widths, _long_lopsided)


def straightened(
    noise: Float[Tensor, "count n"], axes: Float[Tensor, "count modes n"], widths: Float[Tensor, "count modes 2"]
) -> tuple[Float[Tensor, "count n"], Float[Tensor, " count"]]:
    """(e, ln |de'/de|) of e' = `noise`: the inverse of `skewed`."""
    return _along(noise, axes, widths, _normal_of_long)


def pulled_back(
    slope: Float[Tensor, "count n"], noise: Float[Tensor, "count n"],
    axes: Float[Tensor, "count modes n"], widths: Float[Tensor, "count modes 2"],
) -> Float[Tensor, "count n"]:  # fmt: skip
    """d(f - ln |de'/de|)/de at e = `noise`, from `slope` = df/de'."""
    a = (axes @ noise[..., None])[..., 0].double()
    long, log_stretch = long_tailed(a, SHAPE)
    stretch = log_stretch.exp()
    x, log_slope = lopsided(long, widths.double())
    rate = log_slope.exp()
    left, right = widths.double().unbind(-1)
    width = torch.where(x < 0, left, right)
    bends = torch.where(x.abs() < TAIL * width, x * rate / width.square() - long, 0.0)  # d ln h'/dt
    bends = bends * stretch + torch.tanh(a / SHAPE) / SHAPE
    along = (axes @ slope[..., None])[..., 0]
    change = ((rate * stretch - 1) * along - bends).to(slope.dtype)
    return slope + (change[:, None] @ axes)[:, 0]


def _along(noise, axes, widths, turn):
    along = (axes @ noise[..., None])[..., 0]
    turned, log_slope = turn(along.double(), widths.double())
    change = (turned.to(noise.dtype) - along)[:, None] @ axes
    return noise + change[:, 0], log_slope.sum(-1).to(noise.dtype)


def _long_lopsided(a, widths):
    long, stretch = long_tailed(a, SHAPE)
    x, log_slope = lopsided(long, widths)
    return x, log_slope + stretch


def _normal_of_long(x, widths):
    long, log_slope = normal(x, widths)
    a, stretch = unstretched(long, SHAPE)
    return a, log_slope + stretch


def _beyond(t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """What N(0, 1) has beyond t, as exact in the tail as elsewhere (`torch.special.ndtr` is not)."""
    return 0.5 * torch.special.erfc(t * sqrt(0.5))


def lopsided(a: Float[Tensor, "*batch"], widths: Widths) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """(h(a), ln h'(a)), in float64."""
    left, right = widths.unbind(-1)
    share = left / (left + right)  # of what lies on the left
    below = a < torch.special.ndtri(share)
    width, part = torch.where(below, left, right), torch.where(below, share, 1 - share)
    away = torch.where(below, -a, a)  # from the peak, outwards
    end = -torch.special.ndtri(2 * part * _beyond(torch.full_like(a, TAIL)))  # where the line begins
    inner = torch.minimum(away, end)
    t = -torch.special.ndtri((_beyond(inner) / (2 * part)).clamp_max(0.5))
    log_slope = 0.5 * (t * t - inner * inner) + log(0.5) + (left + right).log()
    x = width * t + (away - inner) * log_slope.exp()
    return torch.where(below, -x, x), log_slope


def normal(x: Float[Tensor, "*batch"], widths: Widths) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """(a, ln h'(a)) of x = h(a): the inverse of `lopsided`."""
    left, right = widths.unbind(-1)
    share = left / (left + right)
    below = x < 0
    width, part = torch.where(below, left, right), torch.where(below, share, 1 - share)
    away = x.abs() / width
    t = away.clamp_max(TAIL)
    inner = -torch.special.ndtri(2 * part * _beyond(t))
    log_slope = 0.5 * (t * t - inner * inner) + log(0.5) + (left + right).log()
    a = inner + (away - t) * width * (-log_slope).exp()
    return torch.where(below, -a, a), log_slope
