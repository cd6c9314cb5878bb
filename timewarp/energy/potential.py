"""The potential energy of one molecule for a batch of configurations."""

from __future__ import annotations

import threading

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.energy import bonded, cmap
from timewarp.energy.compiled import compiled as fused
from timewarp.energy.pairs import evaluate, finite
from timewarp.energy.tables import tables
from timewarp.state import Molecule, Positions

WIDEST = 272  # configurations of a chunk on a CPU: rows of twice this length get into each other's way in the cache


_COUNTING = threading.Lock()  # it may be asked by several threads


class Potential:
    """U/kT of a batch, differentiable; also U in kJ/mol and its gradient.

    Args:
        molecule: whose force field is evaluated.
        temperature: K, for the call's U/kT.
        dtype: precision of the evaluation; float32 is accurate to about 1e-3 kJ/mol.
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
        self.tables = tables(molecule.forcefield, units.COULOMB, dtype, device)
        self.forcefield = molecule.forcefield.to(dtype, device)
        self.maps = cmap.coefficients(molecule.forcefield.map_energy.double()).to(device, dtype)
        self.atoms = molecule.atoms
        self.evaluations = 0
        size = torch.finfo(dtype).bits // 8
        rows = max(1, self.tables.ends.shape[1])
        on_gpu = self.device.type == "cuda"
        self.chunk = max(1, 2**28 // (size * rows) if on_gpu else min(WIDEST, memory // (size * rows)))
        self.chunk -= self.chunk % 16 if self.chunk > 16 else 0

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
        results = [self._chunk(part, gradient) for part in flat.split(self._split(len(flat)))]
        energy = results[0][0] if len(results) == 1 else torch.cat([e for e, _ in results])
        if not gradient:
            return energy.reshape(positions.shape[:-2]), None
        slopes = [g for _, g in results if g is not None]
        slope = slopes[0] if len(slopes) == 1 else torch.cat(slopes)
        return energy.reshape(positions.shape[:-2]), slope.reshape(positions.shape)

    def _split(self, count: int) -> int:
        """Configurations of a chunk: chunks of like size, an odd number of cache lines wide where it can be."""
        size = -(-count // max(1, -(-count // self.chunk)))
        wide = -(-size // 16) * 16
        wide += 16 * (wide % 32 == 0)
        return max(1, wide if size < count and wide <= self.chunk else size)

    def _chunk(self, x, want):
        energy, gradient, _ = (fused if self.compiled else evaluate)(x, self.tables, want)
        ff = self.forcefield
        if len(ff.improper_index) or len(ff.map_index):
            first = x.transpose(0, 1).contiguous()
            more = torch.zeros_like(first) if want else None
            if len(ff.improper_index):
                energy = energy + bonded.impropers(first, ff, more)
            if len(ff.map_index):
                energy = energy + cmap.maps(first, ff.map_index, ff.map_kind, self.maps, more)
            energy, gradient = finite(energy, gradient + more.transpose(0, 1) if want else None)
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
