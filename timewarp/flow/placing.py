"""Positions of every atom in one launch on a GPU: what `InternalChart.cartesian` computes level by level.

Each lane of the Triton kernel places the atoms of one configuration, one after another, and reads where the three
before are from what it has written itself. Triton comes with torch for CUDA, and is loaded when first asked for; with
TRITON_INTERPRET=1 it takes tensors on a CPU, for tests.
"""

from __future__ import annotations

import inspect
import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from timewarp.machine import said

PRECISIONS = (torch.float32, torch.float64)
LANES = 64  # configurations of a program
WARPS = 2
tl: Any = None  # triton.language, once it is loaded
_failed: list[str] = []  # why there is no kernel in this process
_tables = WeakIdKeyDictionary()  # of each chart's refs: the order that it goes with, and the table of both


def apt(*tensors: Tensor) -> bool:
    """Whether the kernel can take these: plain tensors on a GPU, of one precision, and nobody asks for a gradient."""
    first = tensors[0]
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if wanted or first.dtype not in PRECISIONS or any(type(t) is not Tensor or t.dtype != first.dtype for t in tensors):
        return False
    here = all(t.is_cuda and t.device == first.device for t in tensors)
    return (here or (_interpreted() and all(t.is_cpu for t in tensors))) and _installed() and not _failed


def cartesian(
    internal: Float[Tensor, "*batch atoms 3"], refs: Int[Tensor, "atoms 3"], order: Int[Tensor, " atoms"]
) -> Float[Tensor, "*batch atoms 3"] | None:
    """Positions from (bond, angle, dihedral) of each place, as `timewarp.flow.loops.cartesian`; it gives no gradient.

    None where the kernel could not be made, as without a C compiler; it is then not `apt` any more.

    Args:
        internal: nm and rad, in placement order.
        refs: places (parent, grandparent, great-grandparent) of each; those of the first three are not looked at.
        order: the atom at each place; positions are in the order of atoms.
    """
    flat = internal.detach().reshape(-1, *internal.shape[-2:]).contiguous()
    found = torch.empty_like(flat)
    count, atoms, _ = flat.shape
    if count:
        grid, table = (-(-count // LANES),), _table(refs, order)
        try:
            with torch.cuda.device_of(flat):  # one stage: no read may be moved ahead of the write before it
                _kernel()[grid](flat, table, found, count, atoms, BLOCK=LANES, num_warps=WARPS, num_stages=1)
        except Exception as error:  # its kinds differ between versions
            _failed.append(said("atoms are placed", error))
            return None
    return found.view(internal.shape)


def _table(refs, order):
    """The atoms at each place, its parent, grandparent and great-grandparent; made once for the tensors of a chart."""
    if refs in _tables:
        known, table = _tables[refs]
        if known is order:
            return table
    table = torch.cat([order[:, None], order[refs.clamp_min(0)]], 1).contiguous()
    _tables[refs] = order, table
    return table


def _interpreted():
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _installed():
    return find_spec("triton") is not None


@cache
def _kernel():
    global tl
    import triton
    import triton.language

    tl = triton.language
    bare = inspect.unwrap(_place)  # without what checks types around it, if something does
    return triton.jit(bare, do_not_specialize=["count", "atoms"])


def _place(internal, table, found, count, atoms, BLOCK: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = lane < count
    q = internal + lane * atoms * 3
    x = found + lane * atoms * 3
    zero = tl.zeros([BLOCK], dtype=internal.dtype.element_ty)

    first = x + 3 * tl.load(table)
    tl.store(first, zero, mask=there)
    tl.store(first + 1, zero, mask=there)
    tl.store(first + 2, zero, mask=there)

    second = x + 3 * tl.load(table + 4)
    along = tl.load(q + 3, mask=there)
    tl.store(second, along, mask=there)
    tl.store(second + 1, zero, mask=there)
    tl.store(second + 2, zero, mask=there)

    third = x + 3 * tl.load(table + 8)
    bond = tl.load(q + 6, mask=there)
    bend = tl.load(q + 7, mask=there)
    tl.store(third, along - bond * tl.cos(bend), mask=there)
    tl.store(third + 1, bond * tl.sin(bend), mask=there)
    tl.store(third + 2, zero, mask=there)
    tl.debug_barrier()

    for k in range(3, atoms):
        own = x + 3 * tl.load(table + 4 * k)
        p = x + 3 * tl.load(table + 4 * k + 1)
        g = x + 3 * tl.load(table + 4 * k + 2)
        f = x + 3 * tl.load(table + 4 * k + 3)
        bond = tl.load(q + 3 * k, mask=there)
        bend = tl.load(q + 3 * k + 1, mask=there)
        turn = tl.load(q + 3 * k + 2, mask=there)
        p0, p1, p2 = tl.load(p, mask=there), tl.load(p + 1, mask=there), tl.load(p + 2, mask=there)
        g0, g1, g2 = tl.load(g, mask=there), tl.load(g + 1, mask=there), tl.load(g + 2, mask=there)
        f0, f1, f2 = tl.load(f, mask=there), tl.load(f + 1, mask=there), tl.load(f + 2, mask=there)

        a0, a1, a2 = p0 - g0, p1 - g1, p2 - g2  # the bond, along it
        s = 1 / tl.sqrt(a0 * a0 + a1 * a1 + a2 * a2)
        a0, a1, a2 = a0 * s, a1 * s, a2 * s
        b0, b1, b2 = g0 - f0, g1 - f1, g2 - f2
        n0, n1, n2 = b1 * a2 - b2 * a1, b2 * a0 - b0 * a2, b0 * a1 - b1 * a0  # out of the plane
        s = 1 / tl.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
        n0, n1, n2 = n0 * s, n1 * s, n2 * s
        m0, m1, m2 = n1 * a2 - n2 * a1, n2 * a0 - n0 * a2, n0 * a1 - n1 * a0

        across = bond * tl.sin(bend)
        u, v, w = -bond * tl.cos(bend), across * tl.cos(turn), across * tl.sin(turn)
        tl.store(own, p0 + u * a0 + v * m0 + w * n0, mask=there)
        tl.store(own + 1, p1 + u * a1 + v * m1 + w * n1, mask=there)
        tl.store(own + 2, p2 + u * a2 + v * m2 + w * n2, mask=there)
        tl.debug_barrier()
