"""The pairs' energy of a group that turns about an axis, at many angles at once; compiled ahead where wanted."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from timewarp.ahead import ahead, kept
from timewarp.flow import pair_tables
from timewarp.flow.pair_tables import CLOSEST

ANGLES = 36  # of a curve, equally spaced from -pi
TEMPER = 3.0  # kT: from here on a clash counts by its logarithm, since the stiff coordinates give way
OPTIONS = {"cpp.dynamic_threads": True}


def energies(a, b, c, cosine, sine, *tables):
    """(clash, electric) of all pairs, [batch, 2, angles], with r^2 = a + b cosine + c sine of the angles."""
    clash, electric = sums(a[..., None] + b[..., None] * cosine + c[..., None] * sine, *tables)
    return torch.stack([tempered(clash), electric], 1)


def sums(square, *tables):
    """(Lennard-Jones, Coulomb and generalized Born), [batch, angles], from squared distances of all pairs."""
    sigma6, epsilon, charge, born, reach = (table[..., None] for table in tables)
    square = square.clamp_min(CLOSEST)
    inverse = 1 / square
    s6 = sigma6 * inverse * inverse * inverse
    clash = (epsilon * (s6 * s6 - s6)).sum((1, 2))
    smooth = (square + reach * torch.exp(-square / (4 * reach))).rsqrt()
    return clash, (charge * inverse.sqrt() - born * smooth).sum((1, 2))


def tempered(clash):
    """The same, by its logarithm from `TEMPER` on."""
    over = (clash - TEMPER).clamp_min(0.0)
    return torch.where(over > 0, TEMPER + TEMPER * torch.log1p(over / TEMPER), clash)


def _named(dtype: torch.dtype) -> tuple[str, list[ModuleType]]:
    return f"growth-{str(dtype)[6:]}", [sys.modules[__name__], pair_tables]


def ready(dtype: torch.dtype) -> bool:
    """Whether the compiled loops are only to be loaded."""
    return kept(OPTIONS, *_named(dtype))


def make(dtype: torch.dtype) -> None:
    """Compile them, if they are not kept."""
    made_for(dtype)


@functools.cache
def _traced() -> Callable[..., Tensor]:
    return torch.compile(energies, dynamic=True)


@functools.cache
def made_for(dtype: torch.dtype) -> Callable[..., Tensor]:
    """On a CPU it is loaded, where a process of this user made it before; else each compiles it at its first call."""
    table = torch.zeros(7, 19, dtype=dtype)  # sizes that are like those of peptides, and unlike one another
    example = [*3 * [table.expand(64, -1, -1).contiguous()], *2 * [torch.zeros(ANGLES, dtype=dtype)], *5 * [table]]
    free = [*3 * [[0, 1, 2]], *2 * [[]], *5 * [[0, 1]]]
    try:
        made = ahead(lambda *t: [energies(*t)], example, free, OPTIONS, *_named(dtype))
    except Exception:  # its kinds differ between versions; what cannot be compiled at all is said at the call
        return _traced()

    def loaded(*tensors):
        if tensors[0].is_cuda or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return _traced()(*tensors)
        return made([t.contiguous() for t in tensors])[0]

    return loaded
