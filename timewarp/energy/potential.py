"""The potential energy of one molecule for a batch of configurations."""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.energy import block, bonded, cmap
from timewarp.energy.compiled import compiled as fused
from timewarp.energy.pairs import evaluate, finite
from timewarp.energy.tables import Tables, tables
from timewarp.forcefield import ForceField
from timewarp.state import Molecule, Positions

WIDEST = 272  # configurations of a chunk on a CPU: rows of twice this length get into each other's way in the cache


_COUNTING = threading.Lock()  # it may be asked by several threads


class Constants(NamedTuple):
    """What the energy of a molecule is made from on one device, and how many configurations are a chunk there."""

    tables: Tables
    forcefield: ForceField
    maps: Tensor
    chunk: int


class Potential:
    """U/kT of a batch, differentiable; also U in kJ/mol and its gradient.

    It is computed where the positions are.

    Args:
        molecule: whose force field is evaluated.
        temperature: K, for the call's U/kT.
        dtype: precision of the evaluation; float32 is accurate to about 1e-3 kJ/mol.
        device: where it is asked most.
        memory: bytes that one number a pair of atoms may take for a chunk of configurations.
        compiled: fuse the loops. On a CPU that takes a compiler and half a minute once for a user, a precision and a
            kind of solvent, and milliseconds from then on; without a compiler the same is computed some times slower.

    The gradient is analytic: `__call__` is differentiable once. Configurations whose energy is not finite
    get +inf (and a zero gradient), for themselves alone.
    """

    def __init__(
        self,
        molecule: Molecule,
        temperature: float = 310.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        memory: int = 2**20,
        compiled: bool = False,
    ):
        self.kT = units.kT(temperature)
        self.temperature = temperature
        self.dtype = dtype
        self.compiled = compiled
        self.device = torch.device(device)
        self.atoms = molecule.atoms
        self.evaluations = 0
        self._molecule, self._memory = molecule, memory
        self._constants: dict[tuple[str, int], Constants] = {}

    def __call__(self, positions: Positions) -> Float[Tensor, "*batch"]:
        """U/kT, with gradients through the analytic forces where `positions` requires them."""
        if torch.is_grad_enabled() and positions.requires_grad:
            return _Differentiable.apply(positions, self) / self.kT
        return self.kilojoules(positions)[0] / self.kT

    @torch.no_grad()
    def slope(self, positions: Positions) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch atoms 3"]]:
        """(U/kT, its gradient in 1/nm), in the precision of the positions."""
        energy, gradient = self.kilojoules(positions, gradient=True)
        assert gradient is not None
        return energy.to(positions.dtype) / self.kT, gradient.to(positions.dtype) / self.kT

    def kilojoules(self, positions: Positions, gradient: bool = False) -> tuple[Tensor, Tensor | None]:
        """U in kJ/mol and, if asked for, dU/dx in kJ/mol/nm, of each configuration.

        Raises:
            ValueError: if the number of atoms is not the molecule's.
        """
        if positions.shape[-2:] != (self.atoms, 3):
            raise ValueError(f"expected positions [..., {self.atoms}, 3] in nm, got {tuple(positions.shape)}")
        flat = positions.detach().reshape(-1, self.atoms, 3).to(self.dtype)
        with _COUNTING:
            self.evaluations += len(flat)
        there = self._there(flat.device)
        results = [self._chunk(part, there, gradient) for part in flat.split(self._split(len(flat), there.chunk))]
        energy = results[0][0] if len(results) == 1 else torch.cat([e for e, _ in results])
        if not gradient:
            return energy.reshape(positions.shape[:-2]), None
        slopes = [g for _, g in results if g is not None]
        slope = slopes[0] if len(slopes) == 1 else torch.cat(slopes)
        return energy.reshape(positions.shape[:-2]), slope.reshape(positions.shape)

    @property
    def tables(self) -> Tables:
        """The constants where it is asked most."""
        return self._there(self.device).tables

    @property
    def chunk(self) -> int:
        """Configurations that are computed at once where it is asked most."""
        return self._there(self.device).chunk

    def _there(self, device: torch.device) -> Constants:
        """The constants on a device, made when they are first wanted."""
        key = device.type, device.index or 0
        found = self._constants.get(key)
        if found is None:
            ff = self._molecule.forcefield
            made = tables(ff, units.COULOMB, self.dtype, device)
            maps = cmap.coefficients(ff.map_energy.double()).to(device, self.dtype)
            row = torch.finfo(self.dtype).bits // 8 * max(1, made.ends.shape[1])
            chunk = max(1, 2**28 // row if device.type == "cuda" else min(WIDEST, self._memory // row))
            chunk -= chunk % 16 if chunk > 16 else 0
            found = self._constants[key] = Constants(made, ff.to(self.dtype, device), maps, chunk)
        return found

    @staticmethod
    def _split(count: int, chunk: int) -> int:
        """Configurations of a chunk: chunks of like size, an odd number of cache lines wide where it can be."""
        size = -(-count // max(1, -(-count // chunk)))
        wide = -(-size // 16) * 16
        wide += 16 * (wide % 32 == 0)
        return max(1, wide if size < count and wide <= chunk else size)

    def _chunk(self, x, there: Constants, want):
        how = block.evaluate if block.apt(x, there.tables) else fused if self.compiled else evaluate
        energy, gradient, _ = how(x, there.tables, want)
        ff = there.forcefield
        if len(ff.improper_index) or len(ff.map_index):
            first = x.transpose(0, 1).contiguous()
            more = torch.zeros_like(first) if want else None
            if len(ff.improper_index):
                energy = energy + bonded.impropers(first, ff, more)
            if len(ff.map_index):
                energy = energy + cmap.maps(first, ff.map_index, ff.map_kind, there.maps, more)
            slope = None if gradient is None or more is None else gradient + more.transpose(0, 1)
            energy, gradient = finite(energy, slope)
        return energy, gradient


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, potential):
        energy, slope = potential.kilojoules(positions.detach(), gradient=True)
        ctx.save_for_backward(slope)
        return energy.to(positions.dtype)

    @staticmethod
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        # 0 * inf would poison a whole batch: a rejected configuration has no gradient
        weight = torch.where(grad.isfinite(), grad, torch.zeros_like(grad))
        return weight[..., None, None] * slope.to(grad.dtype), None
