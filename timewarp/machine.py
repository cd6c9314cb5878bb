"""Loops over atoms as machine code on a CPU, by numba: for what torch would need a call for each atom."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from numba import njit
from torch import Tensor

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
HOW: dict[str, Any] = {
    "nogil": True,  # threads run side by side
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "arcp", "nsz"},  # NaN and infinities stay what they are
}
Loop = Callable[..., None]


def apt(*tensors: Tensor) -> bool:
    """Whether loops can take these: on a CPU, of one precision, and nobody asks for a gradient."""
    first = tensors[0]
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    known = first.dtype in PRECISIONS.values()
    return known and not wanted and all(t.is_cpu and t.dtype == first.dtype for t in tensors)


def said(what: str, error: Exception) -> str:
    """Why a GPU kernel could not be made, warned of once where it is found out."""
    reason = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
    warnings.warn(f"{what} slower, as the GPU's kernel could not be made: {reason}", stacklevel=3)
    return reason


def machine_code(*kinds: str) -> Callable[[Loop], Loop]:
    """Compiles a loop for both precisions, so that nothing is compiled in the midst of a run; kept on disk,
    beside the source or, where that cannot be written to, in the user's cache.

    Args:
        kinds: of its arguments, all of them contiguous arrays: their number of dimensions and x for numbers of the
            precision, d for float64 with either, i for int64, b for bool; such as 3x.
    """
    each = []
    for name in PRECISIONS:
        types = {"x": name, "d": "float64", "i": "int64", "b": "boolean"}
        arrays = [types[kind[-1]] + "[" + ":," * (int(kind[:-1]) - 1) + "::1]" for kind in kinds]
        each.append(f"void({', '.join(arrays)})")

    def made(loop: Loop) -> Loop:
        bare = inspect.unwrap(loop)  # without what checks types around it, if something does
        try:
            return njit(each, cache=True, **HOW)(bare)
        except RuntimeError:  # there is no place to keep it
            return njit(each, **HOW)(bare)

    return made
