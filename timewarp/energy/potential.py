"""The potential energy of one molecule for a batch of configurations."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.energy import bonded, cmap
from timewarp.energy.pairs import pairs, tables
from timewarp.forcefield import ForceField
from timewarp.state import Molecule, Positions


class Potential:
    """U/kT of a batch, differentiable; also U in kJ/mol and its gradient.

    Args:
        molecule: whose force field is evaluated.
        temperature: K, for the call's U/kT.
        dtype: precision of the evaluation; float32 is accurate to about 1e-3 kJ/mol.
        memory: bytes that one pair matrix of a chunk may take.
        compiled: fuse the pair loops (takes a C++ compiler and half a minute, once for all molecules).

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
        everything = molecule.forcefield.to(dtype, device)
        self.tables = tables(everything, units.COULOMB)
        self.forcefield = _without_zeros(everything)
        self.maps = cmap.coefficients(molecule.forcefield.map_energy.double()).to(device, dtype)
        self.atoms = molecule.atoms
        self.evaluations = 0
        size = torch.finfo(dtype).bits // 8
        on_gpu = torch.device(device).type == "cuda"
        self.chunk = max(1, (2**28 if on_gpu else memory) // (size * self.atoms**2))

    def __call__(self, positions: Positions) -> Float[Tensor, "*batch"]:
        """U/kT, with gradients through the analytic forces where `positions` requires them."""
        if torch.is_grad_enabled() and positions.requires_grad:
            return _Differentiable.apply(positions, self) / self.kT
        return self.kilojoules(positions)[0] / self.kT

    def kilojoules(self, positions: Positions, gradient: bool = False) -> tuple[Tensor, Tensor | None]:
        """U in kJ/mol and, if asked for, dU/dx in kJ/mol/nm, of each configuration.

        Raises:
            ValueError: if the number of atoms is not the molecule's.
        """
        if positions.shape[-2:] != (self.atoms, 3):
            raise ValueError(f"expected positions [..., {self.atoms}, 3] in nm, got {tuple(positions.shape)}")
        flat = positions.reshape(-1, self.atoms, 3).to(self.dtype)
        self.evaluations += len(flat)
        results = [self._chunk(part, gradient) for part in flat.split(self.chunk)]
        energy = torch.cat([e for e, _ in results]) if results else flat.new_zeros(0)
        finite = energy.isfinite()
        energy = torch.where(finite, energy, torch.full_like(energy, torch.inf)).reshape(positions.shape[:-2])
        if not gradient:
            return energy, None
        slope = torch.cat([g for _, g in results if g is not None]) if results else flat
        slope = torch.where(finite[:, None, None] & slope.isfinite(), slope, torch.zeros_like(slope))
        return energy, slope.reshape(positions.shape)

    def _chunk(self, x, want):
        ff = self.forcefield
        energy, slope = (_compiled() if self.compiled else pairs)(x, self.tables, want)
        first = x.transpose(0, 1).contiguous()
        gradient = torch.zeros_like(first) if want else None
        energy = energy + bonded.bonds(first, ff, gradient) + bonded.angles(first, ff, gradient)
        energy = energy + bonded.torsions(first, ff, gradient)
        if len(ff.improper_index):
            energy = energy + bonded.impropers(first, ff, gradient)
        if len(ff.map_index):
            energy = energy + cmap.maps(first, ff.map_index, ff.map_kind, self.maps, gradient)
        energy = energy + bonded.exceptions(first, ff, units.COULOMB, gradient)
        return energy, None if gradient is None else slope + gradient.transpose(0, 1)


@functools.cache
def _compiled():
    return torch.compile(pairs, dynamic=True)


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


def _without_zeros(ff: ForceField) -> ForceField:
    torsions = ff.torsion_barrier != 0
    pairs = (ff.exception_charge != 0) | (ff.exception_epsilon != 0)
    kept = {name: getattr(ff, name)[torsions] for name in ff.__dataclass_fields__ if name.startswith("torsion_")}
    kept |= {name: getattr(ff, name)[pairs] for name in ff.__dataclass_fields__ if name.startswith("exception_")}
    return replace(ff, **kept)
