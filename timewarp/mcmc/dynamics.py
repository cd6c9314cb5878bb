"""Langevin dynamics of many replicas on a batched potential: physical velocities, no Metropolis test.

The splitting is the leapfrog middle scheme (Zhang, Liu, Yan, Tuckerman, Liu 2019, J. Phys. Chem. A 123, 6056, eq. 9),
whose configurations are those of BAOAB: for a harmonic oscillator the variances of positions and of velocities have no
error in the time step, as long as it is stable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.mcmc import accept
from timewarp.mcmc.chain import single_test
from timewarp.state import Molecule, Positions, State

HYDROGEN = 3.0  # amu
HOT = 10  # times its thermal average is more kinetic energy than a stable integration has


@runtime_checkable
class Slope(Protocol):
    """U in kJ/mol and dU/dx in kJ/mol/nm of a batch; +inf where an evaluation fails, for that replica alone."""

    def kilojoules(self, positions: Positions, gradient: bool) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class Phase:
    """A point of phase space for each replica: nm, nm/ps; and what was computed there.

    Attributes:
        positions, velocities: nm, nm/ps.
        gradient: dU/dx in kJ/mol/nm.
        energy: U/kT at the temperature of the kernel, whatever the replica's own.
    """

    positions: Positions
    velocities: Float[Tensor, "chains atoms 3"]
    gradient: Float[Tensor, "chains atoms 3"]
    energy: Float[Tensor, " chains"]

    @property
    def state(self) -> State:
        return State.at(self.positions)

    @property
    def tempered(self) -> Float[Tensor, " chains"]:
        """The part of the log density that a heat divides."""
        return -self.energy

    def taken(self, index: Tensor, scale: Tensor) -> Phase:
        """Replica `index[i]` in place i, its velocities times `scale[i]`."""
        parts = {name: getattr(self, name)[index] for name in self.__dataclass_fields__}
        parts["velocities"] = parts["velocities"] * scale.to(parts["velocities"])[:, None, None]
        return Phase(**parts)

    def put(self, index: Tensor, other: Phase) -> Phase:
        """Replica i of `other` in place `index[i]`, these in all other places."""
        parts = self.__dataclass_fields__
        return Phase(**{name: getattr(self, name).index_copy(0, index, getattr(other, name)) for name in parts})

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `Langevin.restore` reads it back."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Langevin:
    """Inexact kernel: `steps` time steps of underdamped Langevin dynamics in each replica.

        symbol     variable
        h          timestep (ps)
        g          gradient, dU/dx (kJ/mol/nm)
        c          exp(-friction h)
        T          temperature * heat

        v <- v - h g/m;  x <- x + h/2 v;  v <- c v + sqrt((1 - c^2) kT/m) N(0, I);  x <- x + h/2 v;  one gradient

    A replica that leaves the finite numbers goes back to where the kernel's step began, with fresh velocities; the
    info's `accepted` is false for it.

    Attributes:
        potential: U in kJ/mol and its gradient.
        masses: amu, [atoms] or [chains, atoms]; an atom of infinite mass (padding) stays where it is.
        temperature: K.
        timestep: ps.
        friction: 1/ps.
        steps: time steps of a step of the kernel.
        heat: temperature of each replica in units of `temperature`.
        centred: whether each replica's centre is put to the origin, which a molecule in free space does not feel.
    """

    potential: Slope
    masses: Float[Tensor, "*chains atoms"]
    temperature: float = 310.0
    timestep: float = 0.002
    friction: float = 1.0
    steps: int = 50
    heat: float | Float[Tensor, " chains"] = 1.0
    centred: bool = False

    exact: ClassVar[bool] = False
    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if not (self.masses > 0).all():
            raise ValueError(f"expected positive masses in amu, got {self.masses.tolist()}; is there a virtual site?")
        if not (self.timestep > 0 and self.friction >= 0 and self.steps >= 1):
            raise ValueError(
                f"expected timestep > 0 ps, friction >= 0 / ps and steps >= 1, got {self.timestep}, {self.friction}, "
                f"{self.steps}"
            )

    @classmethod
    def of(cls, molecule: Molecule, potential: Slope, temperature: float = 310.0, **how: Any) -> Langevin:
        """The kernel of a free molecule, its hydrogens made heavier (see `repartitioned`)."""
        return cls(potential, repartitioned(molecule), temperature, centred=True, **how)

    def heated(self, heat: float | Float[Tensor, " chains"]) -> Langevin:
        return replace(self, heat=heat)

    def on(self, device: torch.device | str) -> Langevin:
        """The same with its masses on a device."""
        return replace(self, masses=self.masses.to(device))

    def init(self, state: State) -> Phase:
        """The replicas at their beginning; velocities N(0, 1) of the state become thermal ones, others are 0.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies.
        """
        x = state.positions
        energy = accept.initial_energy(lambda x: self.potential.kilojoules(x, True)[0], state)
        gradient = self._slope(x)[1]
        v = state.velocities if state.velocities.shape == x.shape else torch.zeros_like(x)
        return Phase(x, v * self._thermal(x), gradient, energy / units.kT(self.temperature))

    def restore(self, tensors: dict[str, Tensor]) -> Phase:
        """The inverse of `Phase.tensors`."""
        return Phase(**tensors)

    def moved(self, phase: Phase, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Phase, int]:
        """The replicas at positions that another kernel led to, and the energy evaluations that this took."""
        return replace(phase, positions=positions, gradient=self._slope(positions)[1], energy=energy), len(positions)

    @torch.no_grad()
    def step(self, phase: Phase, rng: torch.Generator) -> tuple[Phase, dict[str, Any]]:
        """`steps` time steps of each replica; the info has `kinetic`, the kinetic energy in kJ/mol."""
        h, c = self.timestep, math.exp(-self.friction * self.timestep)
        x, v, g = phase.positions.clone(), phase.velocities.clone(), phase.gradient
        thermal = self._thermal(x)
        noise, spread = torch.empty_like(x), math.sqrt(1 - c * c) * thermal
        kick = -h / self.masses.to(x)[..., None]
        for _ in range(self.steps):
            v.addcmul_(g, kick)
            x.add_(v, alpha=0.5 * h)
            v.mul_(c).addcmul_(noise.normal_(generator=rng), spread)
            x.add_(v, alpha=0.5 * h)
            energy, g = self._slope(x)
        kinetic = self._kinetic(v)
        sound = energy.isfinite() & (kinetic < HOT * self._thermal_energy(x))
        each = sound[:, None, None]
        x = torch.where(each, x, phase.positions)
        v = torch.where(each, v, noise.normal_(generator=rng) * thermal)
        present = torch.where(sound, energy.double() / units.kT(self.temperature), phase.energy)
        if self.centred:
            x = x - self._centre(x)
        phase = Phase(x, v, torch.where(each, g, phase.gradient), present)
        return phase, single_test(sound, present, self.steps * len(x)) | {"kinetic": self._kinetic(v)}

    def freedoms(self) -> Tensor:
        """Degrees of freedom of a replica."""
        return 3 * self.masses.isfinite().sum(-1)

    def _slope(self, x: Positions) -> tuple[Tensor, Tensor]:
        energy, gradient = self.potential.kilojoules(x, True)
        assert gradient is not None
        return energy, gradient.to(x.dtype)

    def _thermal(self, x: Positions) -> Tensor:
        """sqrt(kT/m) in nm/ps, of the shape of the positions or broadcastable to it."""
        return (
            units.kT(self.temperature) * self._heat(x, x.dtype)[:, None, None] / self.masses.to(x)[..., None]
        ).sqrt()

    def _thermal_energy(self, x: Positions) -> Tensor:
        return 0.5 * self.freedoms().to(x.device) * units.kT(self.temperature) * self._heat(x, torch.float64)

    def _heat(self, x: Positions, dtype: torch.dtype) -> Tensor:
        heat = self.heat
        known = heat.to(x.device, dtype) if isinstance(heat, Tensor) else x.new_full((1,), heat, dtype=dtype)
        return known.reshape(-1)

    def _kinetic(self, v: Tensor) -> Float[Tensor, " chains"]:
        mass = torch.where(self.masses.isfinite(), self.masses, 0.0).to(v.device, torch.float64)
        return 0.5 * (mass * v.double().square().sum(-1)).sum(-1)

    def _centre(self, x: Positions) -> Tensor:
        real = self.masses.isfinite().to(x)[..., None]
        return real * (x * real).sum(-2, keepdim=True) / real.sum(-2, keepdim=True)


def repartitioned(molecule: Molecule, hydrogen: float = HYDROGEN) -> Float[Tensor, " atoms"]:
    """The masses with `hydrogen` amu for each hydrogen, taken from the atom that it is bound to.

    No average over positions depends on masses; the fastest vibrations become slower, the molecule's mass stays.

    Raises:
        ValueError: if a heavy atom would be left with nothing.
    """
    masses = molecule.masses.clone()
    light = molecule.elements == 1
    for one, two in molecule.bonds.tolist():
        for h, other in ((one, two), (two, one)):
            if light[h] and not light[other]:
                masses[other] -= hydrogen - masses[h]
                masses[h] = hydrogen
    if not (masses > 0).all():
        raise ValueError(f"expected masses that can spare {hydrogen:g} amu a hydrogen, got {molecule.masses.tolist()}")
    return masses
