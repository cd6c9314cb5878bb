"""The potential as one compiled function, shared by all molecules; without a compiler, the plain one."""

from __future__ import annotations

import functools
import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.energy.pairs import Evaluated, evaluate
from timewarp.energy.tables import Tables

OPTIONS: dict[str, Any] = {
    "realize_reads_threshold": 10,  # what is to be stored is said by `Evaluated.kept`
    "realize_opcount_threshold": 40,
    "max_fusion_size": 512,  # one loop over the pairs, however many steps it has
    "max_pointwise_cat_inputs": 0,  # write the parts of a table where they belong
    "assert_indirect_indexing": False,  # the tables' indices are right by construction
    "cpp.dynamic_threads": True,
    "cpp.enable_floating_point_contract_flag": "fast",  # fused multiply-add
}
COMPILERS = ("g++", "clang++", "c++")
_failed: list[str] = []  # why there is no compiling in this process


def works() -> bool:
    """Whether compiling has not failed in this process."""
    return not _failed


def compiled(x: Float[Tensor, "batch atoms 3"], t: Tables, want: bool) -> Evaluated:
    """`evaluate`, compiled at the first call (for a precision, a kind of solvent, and with or without gradient)."""
    count = len(x)
    if not count or _failed:
        return evaluate(x, t, want)
    try:
        with torch.no_grad():
            # for a batch of one the compiler would make a function of its own
            found = _function(x.device.type)((x.expand(2, -1, -1) if count == 1 else x).contiguous(), t, want)
    except Exception as error:  # its kinds differ between versions; a mistake of ours comes again from the plain one
        found = evaluate(x, t, want)
        _failed.append(f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}")
        warnings.warn(f"the energy is computed slower, as it could not be compiled: {_failed[0]}", stacklevel=2)
        return found
    slope = None if found.gradient is None else found.gradient[:count]
    return Evaluated(found.energy[:count], slope, [])


@functools.cache
def _function(device: str) -> Callable[..., Evaluated]:
    name = os.environ.get("CXX", "")
    if device == "cpu" and not any(map(shutil.which, [name] if name else COMPILERS)):  # found out late otherwise
        raise RuntimeError(f"expected a C++ compiler, {name or ' or '.join(COMPILERS)}, found none")
    return torch.compile(evaluate, dynamic=True, options=OPTIONS)
