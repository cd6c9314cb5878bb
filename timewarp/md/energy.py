"""OpenMM as the reference energy: any System on any platform, one configuration at a time."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

import numpy as np
import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from timewarp import units
from timewarp.md.platforms import usable
from timewarp.state import Positions

TRIES = 10  # evaluations that a platform is timed on
SMALL = 500  # atoms below which one thread is the fastest, and repeats itself


class OpenMMEnergy:
    """U/kT of a batch, differentiable once; also U in kJ/mol and its gradient.

    Args:
        system: with any forces.
        temperature: K, for the call's U/kT.
        platform: its name, as OpenMM knows it; if not given, the fastest of those that work here.
        properties: of the platform.

    Configurations whose energy cannot be computed or is not finite get +inf (and a zero gradient), for themselves
    alone.

    Raises:
        ValueError: if there is no such platform.
    """

    def __init__(
        self,
        system: openmm.System,
        temperature: float = 310.0,
        platform: str | None = None,
        properties: dict[str, str] | None = None,
    ):
        self.kT = units.kT(temperature)
        self.temperature = temperature
        self.atoms = system.getNumParticles()
        self.evaluations = 0
        self._context: Any = None  # made at the first evaluation, whose positions serve to choose the platform
        self._system = system
        self._platform = platform
        self._properties = properties or {}
        if platform is not None:
            self._context = context_on(system, platform, self._properties)

    @property
    def platform(self) -> str | None:
        """The name of the platform; None where it is still to be chosen."""
        return self._context and self._context.getPlatform().getName()

    def __call__(self, positions: Positions) -> Float[Tensor, "*batch"]:
        """U/kT, with gradients through the forces where `positions` requires them."""
        if torch.is_grad_enabled() and positions.requires_grad:
            return _Differentiable.apply(positions, self) / self.kT
        return self.kilojoules(positions)[0] / self.kT

    def kilojoules(self, positions: Positions, gradient: bool = False) -> tuple[Tensor, Tensor | None]:
        """U in kJ/mol and, if asked for, dU/dx in kJ/mol/nm, of each configuration, in the precision of `positions`.

        Raises:
            ValueError: if the number of atoms is not the System's.
        """
        if positions.shape[-2:] != (self.atoms, 3):
            raise ValueError(f"expected positions [..., {self.atoms}, 3] in nm, got {tuple(positions.shape)}")
        flat = positions.detach().reshape(-1, self.atoms, 3).to("cpu", torch.float64).numpy()
        self.evaluations += len(flat)
        energies, slopes = np.full(len(flat), np.inf), np.zeros(flat.shape if gradient else 0)
        for i, x in enumerate(flat):
            found = self._one(x, gradient)
            if found is not None:
                energies[i] = found[0]
                if gradient:
                    slopes[i] = found[1]
        energy = torch.from_numpy(energies).to(positions).reshape(positions.shape[:-2])
        return energy, torch.from_numpy(slopes).to(positions).reshape(positions.shape) if gradient else None

    def _one(self, x: np.ndarray, gradient: bool) -> tuple[float, np.ndarray | None] | None:
        if not np.isfinite(x).all():
            return None
        if self._context is None:
            self._context = fastest(self._system, x, self._properties)
        try:
            self._context.setPositions(x)
            state = self._context.getState(getEnergy=True, getForces=gradient)
        except openmm.OpenMMException:
            self._context = context_on(self._system, self._context.getPlatform().getName(), self._properties)
            return None
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        if not np.isfinite(energy):
            return None
        if not gradient:
            return energy, None
        slope = -state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        return energy, np.where(np.isfinite(slope), slope, 0.0)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, energy):
        value, slope = energy.kilojoules(positions.detach(), gradient=True)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        # 0 * inf would poison a whole batch: a rejected configuration has no gradient
        weight = torch.where(grad.isfinite(), grad, torch.zeros_like(grad))
        return weight[..., None, None] * slope, None


def context_on(
    system: openmm.System,
    platform: str,
    properties: dict[str, str] | None = None,
    integrator: openmm.Integrator | None = None,
) -> openmm.Context:
    """A Context on a platform, with the most exact and repeatable of its settings unless told others.

    Raises:
        ValueError: if the platform does not exist or cannot be used here.
    """
    own = {
        "CPU": {"DeterministicForces": "true"} | ({"Threads": "1"} if system.getNumParticles() < SMALL else {}),
        "CUDA": {"Precision": "mixed", "DeterministicForces": "true"},
        "OpenCL": {"Precision": "mixed"},
    }.get(platform, {})
    try:
        found = openmm.Platform.getPlatformByName(platform)
        return openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), found, own | (properties or {}))
    except openmm.OpenMMException as error:
        raise ValueError(f"expected an OpenMM platform that works here, got {platform}: {error}") from error


def fastest(
    system: openmm.System, positions: Float[np.ndarray, "atoms 3"], properties: dict[str, str] | None = None
) -> openmm.Context:
    """A Context on the platform that evaluates `positions` (nm) in the least time.

    Raises:
        ValueError: if no platform can evaluate this System.
    """
    best, least, failed = None, float("inf"), "there is none"
    for name in usable():
        try:
            context = context_on(system, name, properties)
            _evaluate(context, positions)  # what is compiled or found out at the first is not timed
            began = time.perf_counter()
            for _ in range(TRIES):
                _evaluate(context, positions)
            took = time.perf_counter() - began
        except (ValueError, openmm.OpenMMException) as error:
            failed = str(error)
            continue
        if took < least:
            best, least = context, took
    if best is None:
        raise ValueError(f"expected an OpenMM platform that can evaluate the System, found none: {failed}")
    return best


def fingerprint(system: openmm.System) -> str:
    """A name for a potential and its masses: the same if and only if every parameter is."""
    text = re.sub(r' openmmVersion="[^"]*"', "", openmm.XmlSerializer.serialize(system))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _evaluate(context, positions):
    context.setPositions(positions)
    return context.getState(getEnergy=True, getForces=True)
