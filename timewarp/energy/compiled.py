"""The potential as one compiled function, shared by all molecules; without a compiler, the plain one."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch

from timewarp.energy.pairs import Evaluated, evaluate
from timewarp.energy.tables import Tables

OPTIONS: dict[str, Any] = {
    "max_fusion_size": 512,  # one loop over the pairs, however many steps it has
    "max_pointwise_cat_inputs": 0,  # write the parts of a table where they belong
    "assert_indirect_indexing": False,  # the tables' indices are right by construction
    "cpp.dynamic_threads": True,
    "cpp.enable_floating_point_contract_flag": "fast",  # fused multiply-add
}
_failed: list[str] = []  # why there is no compiling in this process


def compiled(x: torch.Tensor, t: Tables, want: bool) -> Evaluated:
    """`evaluate`, compiled at the first call (for a precision, a kind of solvent, and with or without gradient)."""
    if _failed:
        return evaluate(x, t, want)
    count = x.shape[-1]
    if count == 1:  # for which the compiler would make a function of its own
        x = x.expand(-1, -1, 2).contiguous()
    try:
        with torch.no_grad():
            found = _function()(x, t, want)
    except Exception as error:  # its kinds differ between versions; a mistake of ours comes again from the plain one
        found = evaluate(x, t, want)
        _failed.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
        warnings.warn(f"the energy is computed slower, as it could not be compiled: {_failed[0]}", stacklevel=2)
    return found if count > 1 else Evaluated(found.energy[:1], found.gradient[..., :1] if want else None, [])


@functools.cache
def _function():
    return torch.compile(evaluate, dynamic=True, options=OPTIONS)
