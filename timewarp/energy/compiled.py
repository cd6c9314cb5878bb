"""The potential as one compiled function, shared by all molecules; without a compiler, the plain one.

On a CPU it is compiled ahead of time, once for a user's machine, and only loaded from then on (see `timewarp.ahead`);
on a GPU, or where an old torch cannot do that, each process compiles it at its first call.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.ahead import ahead, kept
from timewarp.energy import angles, pairs, tables
from timewarp.energy.pairs import Evaluated, evaluate
from timewarp.energy.tables import Born, Tables

OPTIONS: dict[str, Any] = {
    "realize_reads_threshold": 10,  # what is to be stored is said by `Evaluated.kept`
    "realize_opcount_threshold": 40,
    "max_fusion_size": 512,  # one loop over the pairs, however many steps it has
    "max_pointwise_cat_inputs": 0,  # write the parts of a table where they belong
    "assert_indirect_indexing": False,  # the tables' indices are right by construction
    "cpp.dynamic_threads": True,
    "cpp.enable_floating_point_contract_flag": "fast",  # fused multiply-add
}
# what it is compiled for: no two are the same, or the compiler takes them for one
SIZES = {"batch": 272, "atoms": 43, "pairs": 43 * 21, "others": 42, "angles": 76, "torsions": 105, "slots": 31}
# sizes of the dimensions that differ between molecules
COLUMNS = {1: "pairs"}
FREE: dict[str, dict[int, str]] = {
    "ends": COLUMNS,
    "partners": {0: "others", 1: "atoms"},
    "shared": {0: "others", 1: "atoms"},
    "ordered": {0: "others", 1: "atoms"},
    "reverse": {0: "others", 1: "atoms"},
    "pairs": COLUMNS,
    "angle_index": {1: "angles"},
    "angle": {1: "angles"},
    "torsion_index": {1: "torsions"},
    "torsion": {2: "torsions"},
    "slots": {0: "slots", 1: "atoms"},
    "constant": {},
    "born.pairs": COLUMNS,
    "born.atoms": {1: "atoms"},
    "born.numbers": {},
    "born.neck": {2: "pairs"},
}
SOURCES = [pairs, angles, tables]
Kind = tuple[str, int, Sequence[bool] | None]
Made = Callable[[Tensor, Tables, bool], Evaluated]
_failed: list[str] = []  # why there is no compiling in this process


def works() -> bool:
    """Whether compiling has not failed in this process."""
    return not _failed


def ready(t: Tables) -> bool:
    """Whether the functions of a molecule's kind, with and without gradient, are only to be loaded."""
    return all(kept(OPTIONS, _name(*_kind(t, want)), SOURCES) for want in (False, True))


def needed(t: Tables) -> Kind:
    """What a molecule's compiled functions are told apart by: precision, terms of a torsion, kind of solvent."""
    dtype, periods, _, born = _kind(t, False)
    return str(dtype).removeprefix("torch."), periods, born


def make(kind: Kind) -> None:
    """Compile the functions of a kind, if they are not kept; what goes wrong is said at the first call."""
    dtype, periods, born = kind
    with contextlib.suppress(Exception):
        for want in (False, True):
            _function("cpu", getattr(torch, dtype), periods, want, None if born is None else tuple(born))


def compiled(x: Float[Tensor, "batch atoms 3"], t: Tables, want: bool) -> Evaluated:
    """`evaluate`, compiled at the first call (for a precision, a kind of solvent, and with or without gradient)."""
    if not len(x) or _failed or min(len(t.partners), t.angle.shape[1], t.torsion.shape[2]) < 2:
        return evaluate(x, t, want)
    try:
        with torch.no_grad():
            return _function(x.device.type, *_kind(t, want))(x.contiguous(), t, want)
    except Exception as error:  # its kinds differ between versions; a mistake of ours comes again from the plain one
        found = evaluate(x, t, want)
        _failed.append(f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}")
        warnings.warn(f"the energy is computed slower, as it could not be compiled: {_failed[0]}", stacklevel=2)
        return found


def _kind(t: Tables, want: bool) -> tuple[torch.dtype, int, bool, tuple[bool, ...] | None]:
    """What one compiled function serves, whatever the molecule."""
    born = None if t.born is None else (t.born.rescaled, t.born.salt, t.born.neck is not None)
    return t.pairs.dtype, t.torsion.shape[1], want, born


def _name(dtype: torch.dtype, periods: int, want: bool, born: tuple[bool, ...] | None) -> str:
    solvent = "vacuum" if born is None else "".join(letter for letter, there in zip("rsn", born) if there) or "hct"
    return f"energy-{str(dtype)[6:]}-{periods}-{solvent}-{'gradient' if want else 'alone'}"


@functools.cache
def _function(device: str, dtype: torch.dtype, periods: int, want: bool, born: tuple[bool, ...] | None) -> Made:
    if device != "cpu":
        return _at_first_call()
    like = _example(dtype, periods, born)

    def flat(x, *tensors):
        energy, gradient, kept = evaluate(x, _filled(like, iter(tensors)), want)
        return [energy, *([gradient] if want else []), *kept]

    named = [("", torch.zeros(SIZES["batch"], SIZES["atoms"], 3, dtype=dtype)), *_tensors(like)]
    free = [list(FREE[name]) if name else [0, 1] for name, _ in named]
    try:
        made = ahead(flat, [tensor for _, tensor in named], free, OPTIONS, _name(dtype, periods, want, born), SOURCES)
    except (ImportError, AttributeError, TypeError):  # torch is older than this way
        return _at_first_call()

    def function(x: Tensor, t: Tables, want: bool) -> Evaluated:
        found = made([x, *(tensor for _, tensor in _tensors(t))])
        return Evaluated(found[0], found[1] if want else None, [])

    return function


def _at_first_call() -> Made:
    whole = _traced()

    def function(x: Tensor, t: Tables, want: bool) -> Evaluated:
        count = len(x)
        # for a batch of one the compiler would make a function of its own
        found = whole(x.expand(2, -1, -1).contiguous() if count == 1 else x, t, want)
        slope = None if found.gradient is None else found.gradient[:count]
        return Evaluated(found.energy[:count], slope, [])

    return function


@functools.cache
def _traced() -> Callable[..., Evaluated]:
    return torch.compile(evaluate, dynamic=True, options=OPTIONS)


def _tensors(t: Tables | Born, before: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in zip(t._fields, t):
        if isinstance(value, Tensor):
            yield before + name, value
        elif isinstance(value, Born):
            yield from _tensors(value, "born.")


def _filled(t, tensors: Iterator[Tensor]):
    """The same with other tensors in place of its own."""
    if isinstance(t, Tensor):
        return next(tensors)
    return type(t)(*(_filled(value, tensors) for value in t)) if isinstance(t, tuple) else t


def _example(dtype: torch.dtype, periods: int, born: tuple[bool, ...] | None) -> Tables:
    """Tables of `SIZES`, all zero."""
    fixed = {"ends": 2, "pairs": len(tables.Pairs._fields), "angle_index": 3, "angle": 2, "torsion_index": 4}
    fixed |= {"born.pairs": len(tables.Spheres._fields), "born.atoms": len(tables.Atoms._fields)}

    def zeros(name: str) -> Tensor:
        if name in ("constant", "born.numbers"):
            return torch.zeros((1,) if name == "constant" else (len(tables.Solvent._fields), 1), dtype=dtype)
        sizes = [SIZES[size] for size in FREE[name].values()]
        whole = name in ("ends", "partners", "shared", "ordered", "reverse", "slots") or name.endswith("_index")
        first = {"torsion": [2, periods], "born.neck": [3, 2]}.get(name, [fixed[name]] if name in fixed else [])
        return torch.zeros(*first, *sizes, *([] if whole else [1]), dtype=torch.long if whole else dtype)

    solvent = None
    if born is not None:
        rescaled, salt, neck = born
        parts = (zeros("born.pairs"), zeros("born.atoms"), zeros("born.numbers"))
        solvent = Born(*parts, zeros("born.neck") if neck else None, rescaled, salt)
    return Tables(*(solvent if name == "born" else zeros(name) for name in Tables._fields))  # type: ignore[arg-type]
