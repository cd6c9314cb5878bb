"""Atoms on springs to fixed points, whose law is known; the Gaussian proposals that know the points; AA, made once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import openmm
import torch
from openmm import app, unit
from scipy import stats
from torch import Tensor

from timewarp.kernel import Kernel
from timewarp.mcmc import Independence, bulk_ess
from timewarp.md import prepare
from timewarp.resources import peptide_path
from timewarp.state import State
from timewarp.units import kT

STIFFNESS = 500.0  # kJ/mol/nm^2
POINTS = torch.tensor([[0.3, -0.1, 0.2], [1.1, 0.4, -0.5]])  # nm
T = 310.0


def springs(mass: float = 40.0) -> tuple[app.Topology, openmm.System]:
    """Two atoms, each on a spring to its point."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("ALA", topology.addChain())
    force = openmm.CustomExternalForce("k/2*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    force.addGlobalParameter("k", STIFFNESS)
    for name in ("x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    for i, point in enumerate(POINTS.tolist()):
        topology.addAtom(f"C{i}", app.element.carbon, residue)
        force.addParticle(system.addParticle(mass), point)
    system.addForce(force)
    return topology, system


@dataclass
class Springs:
    """U/kT of the same in torch."""

    temperature: float

    def __call__(self, positions: Tensor) -> Tensor:
        return 0.5 * STIFFNESS / kT(self.temperature) * (positions - POINTS).square().sum((-2, -1))


@dataclass(frozen=True)
class Cloud:
    """Independent draws about the points, `wider` times as wide as at 310 K and moved off by `shift` (nm)."""

    wider: float = 1.3
    shift: float = 0.02

    memoryless = True
    channels = 0

    def __call__(self, positions: Tensor) -> Cloud:
        return self

    @property
    def sigma(self) -> float:
        return self.wider * math.sqrt(kT(T) / STIFFNESS)

    def log_prob(self, state: State) -> Tensor:
        u = (state.positions - POINTS - self.shift) / self.sigma
        return -0.5 * u.square().sum((-2, -1)) - 6 * math.log(self.sigma)

    def sample(self, count: int, rng: torch.Generator) -> tuple[State, Tensor]:
        u = torch.randn(count, 1, 2, 3, generator=rng)
        state = State.at(POINTS + self.shift + self.sigma * u)
        return state, self.log_prob(state)


def spring_kernel(width: int = 16) -> Callable[[float], Kernel]:
    return lambda temperature: Independence(Springs(temperature), Cloud(), width)


def pvalue(draws: np.ndarray, cdf) -> float:
    """K-S of correlated draws against a law, which count as their effective number."""
    n = bulk_ess(draws[None])
    d = stats.kstest(draws, cdf).statistic
    return float(stats.kstwobign.sf((np.sqrt(n) + 0.12 + 0.11 / np.sqrt(n)) * d))


def spring_pvalues(positions: np.ndarray, temperature: float = T) -> list[float]:
    """K-S of every coordinate of frames [frames, 2, 3] against its law."""
    sigma = math.sqrt(kT(temperature) / STIFFNESS)
    u = (positions - POINTS.numpy()) / sigma
    return [pvalue(u[:, i, k], "norm") for i in range(2) for k in range(3)]


def reduced_energies(positions: np.ndarray, temperature: float = T) -> np.ndarray:
    """U/kT of frames [frames, 2, 3]."""
    return 0.5 * STIFFNESS / kT(temperature) * ((positions - POINTS.numpy()) ** 2).sum((1, 2))


def energy_law(energy):
    """The law of U/kT, and of the kinetic energy: half the sum of six squares of standard normal variables."""
    return 1 - np.exp(-energy) * (1 + energy + energy**2 / 2)


def simulation(
    topology: app.Topology, system: openmm.System, positions, step: float = 0.002, friction: float = 1.0, seed: int = 1
) -> app.Simulation:
    """Langevin dynamics at 310 K on one thread, thermalised velocities, repeatable."""
    integrator = openmm.LangevinMiddleIntegrator(T * unit.kelvin, friction / unit.picosecond, step * unit.picosecond)
    integrator.setRandomNumberSeed(seed)
    made = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    made.context.setPositions(np.asarray(positions))
    made.context.setVelocitiesToTemperature(T * unit.kelvin, seed)
    return made


@cache
def prepared(name: str = "AA"):
    return prepare(peptide_path(name))
