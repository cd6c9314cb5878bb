"""The potential on a GPU: one block of threads evaluates one configuration, by the kernel of `tiles`.

| symbol | variable |
|---|---|
| constants of the pairs, [N, N] each, zero where there is no pair | matrices |
| constants of the atoms, [N] each | spheres |
| N, atoms rounded up to a power of two | wide |
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.energy import pairs
from timewarp.energy.pairs import Evaluated
from timewarp.energy.tables import Atoms, Pairs, Solvent, Spheres, Tables
from timewarp.machine import said

WIDEST = 256  # atoms
TILE = 256  # pairs visited at once: with more, fewer blocks of threads find registers
ROWS = 16  # atoms at most that are visited at once beside all others
TERMS = 128  # angles or torsions at once
WARPS = 4
_failed: list[str] = []  # why there is no kernel in this process


class Packed(NamedTuple):
    """The constants as the kernel reads them."""

    matrices: Float[Tensor, "columns wide wide"]
    spheres: Float[Tensor, "columns wide"]
    numbers: Float[Tensor, " numbers"]
    angle_index: Int[Tensor, "3 angles"]
    angle: Float[Tensor, "2 angles"]
    torsion_index: Int[Tensor, "4 torsions"]
    torsion: Float[Tensor, "2 periods torsions"]
    slots: Int[Tensor, "most wide"]
    cut: bool  # whether the pairs have a cutoff


def apt(x: Tensor, t: Tables) -> bool:
    """Whether the kernel can evaluate these positions with these constants."""
    known = t.born is None or (t.born.neck is None and not t.born.salt)
    single = x.dtype == t.pairs.dtype == torch.float32
    there = x.shape[-2] <= WIDEST and type(x) is Tensor and (x.is_cuda or _interpreted())
    return known and single and there and _installed() and not _failed


def evaluate(x: Float[Tensor, "batch atoms 3"], t: Tables, want: bool) -> Evaluated:
    """The same as `pairs.evaluate`, of positions that are `apt`; by it, where the kernel cannot be made."""
    try:
        from timewarp.energy import tiles
    except Exception as error:  # a triton that does not suit
        _failed.append(said("the energy is computed", error))
        return pairs.evaluate(x, t, want)
    batch, atoms, _ = x.shape
    c = packed(t)
    x = x.contiguous()
    energy = x.new_empty(batch)
    gradient = torch.empty_like(x) if want else None
    if not batch:
        return Evaluated(energy, gradient, [])
    wide = c.spheres.shape[1]
    rows = min(ROWS, TILE // wide)
    angles, torsions = c.angle.shape[1], c.torsion.shape[2]
    scratch = x.new_empty(batch, 2 * wide + 3 * (3 * angles + 4 * torsions) if want else wide)
    try:
        with torch.cuda.device_of(x):
            tiles.evaluate[(batch,)](
                x, energy, energy if gradient is None else gradient, scratch, *c[:-1], atoms, angles, torsions,
                N=wide, ROWS=rows, END=_up(atoms, rows), TERMS=TERMS, ANGLES=_up(angles, TERMS),
                TORSIONS=_up(torsions, TERMS), PERIODS=c.torsion.shape[1], MOST=len(c.slots), WANT=want,
                BORN=t.born is not None, RESCALED=t.born is not None and t.born.rescaled, CUT=c.cut,
                num_warps=WARPS, num_stages=1,
            )  # fmt: skip
    except Exception as error:  # its kinds differ between versions
        _failed.append(said("the energy is computed", error))
        return pairs.evaluate(x, t, want)
    return Evaluated(energy, gradient, [])


@functools.lru_cache(maxsize=32)  # tensors are hashed by identity, and kept
def packed(t: Tables) -> Packed:
    """The tables laid out for the kernel, made once."""
    pair = Pairs(*t.pairs[..., 0].unbind(0))
    atoms = t.partners.shape[1]
    wide = max(16, 1 << (atoms - 1).bit_length())
    spheres = t.pairs.new_zeros(9, wide)
    numbers = torch.cat([t.constant, t.constant.new_zeros(3)])
    between = torch.zeros_like(pair.charge)
    if t.born is not None:
        sphere, atom = Spheres(*t.born.pairs[..., 0].unbind(0)), Atoms(*t.born.atoms[..., 0].unbind(0))
        number = Solvent(*t.born.numbers.unbind(0))
        between = sphere.charge
        scaled = torch.zeros_like(atom.own)
        scaled[t.ends[0]] = sphere.scaled_i
        scaled[t.ends[1]] = sphere.scaled_j
        spheres[0] = spheres[2] = 1.0  # an atom that is not there has a radius that can be divided by
        spheres[:, :atoms] = torch.stack([
            atom.own, scaled, atom.inverse_own, atom.inverse_rho, atom.alpha, atom.beta, atom.gamma, atom.charge,
            atom.nonpolar,
        ])  # fmt: skip
        numbers = torch.cat([t.constant, number.solute - number.solvent, number.reach2, number.shift])
    columns = torch.stack([
        pair.charge, pair.repulsion, pair.attraction, pair.stiffness, pair.length, between, pair.field, pair.shift,
        pair.reach2,
    ])  # fmt: skip
    matrices = columns.new_zeros(len(columns), wide, wide)
    matrices[:, t.partners, torch.arange(atoms, device=t.partners.device)] = columns[:, t.shared]
    rows = 3 * t.angle_index.shape[1] + 4 * t.torsion_index.shape[1]
    slots = t.slots.new_full((_up(len(t.slots), ROWS), wide), rows)
    slots[: len(t.slots), :atoms] = t.slots
    return Packed(
        matrices, spheres, numbers, t.angle_index.int(), t.angle[..., 0].contiguous(), t.torsion_index.int(),
        t.torsion[..., 0].contiguous(), slots.int(), bool(pair.reach2.isfinite().any()),
    )  # fmt: skip


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None
