"""Langevin dynamics by OpenMM, the baseline that every other sampler is measured against.

The integrator is LangevinMiddle (Zhang, Liu, Yan, Tuckerman, Liu 2019, J. Phys. Chem. A 123, 6056, eq. 9): its
error of configurations is of second order in the time step, and no Metropolis-Hastings test removes it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import openmm
import torch
from jaxtyping import Float
from openmm import app
from torch import Tensor

from timewarp import units
from timewarp.md.energy import context_on
from timewarp.md.system import Prepared
from timewarp.state import State

HOT = 10  # times its thermal average is more kinetic energy than a stable integration has
TIGHT = 1e-6  # relative tolerance of constrained distances
BURST = {"CPU": 4_000, "Reference": 1_000}  # integration steps of all chains in one kernel step
LONG_BURST = 200_000  # where a Context takes seconds to make


class Unstable(RuntimeError):
    """The integration left the finite numbers, or heats up."""


class Integration(NamedTuple):
    """How MD is integrated: step in ps, friction in 1/ps, hydrogen mass in amu (None: as it is)."""

    step: float
    friction: float
    rigid: bool  # bonds to hydrogen
    hydrogen: float | None


PROTOCOLS = {
    "paper": Integration(step=0.0005, friction=0.3, rigid=False, hydrogen=None),
    "tuned": Integration(step=0.004, friction=1.0, rigid=True, hydrogen=3.0),
}


@dataclass(frozen=True)
class Phase:
    """A point of phase space for each chain: positions in nm, velocities in nm/ps."""

    positions: Float[Tensor, "chains atoms 3"]
    velocities: Float[Tensor, "chains atoms 3"]

    def tensors(self) -> dict[str, Tensor]:
        """What it is saved as."""
        return {"positions": self.positions, "velocities": self.velocities}


@dataclass(frozen=True)
class LangevinMD:
    """A kernel whose step integrates `stride` x `frames` time steps of every chain.

    Pure: each step makes its Contexts anew and seeds them from `rng`, so that the same state and generator give the
    same trajectory, bit for bit, on one platform and machine, whenever it was stopped in between. A step of fewer
    frames gives the first of those of a longer one.

    Attributes:
        system: its masses and constraints are those of the integration, see `of`.
        temperature: K.
        integration: see `PROTOCOLS`.
        stride: time steps between frames.
        frames: frames of a step.
        platform: of OpenMM.
        workers: chains that are integrated at a time, each by one thread.
    """

    system: openmm.System
    temperature: float
    integration: Integration
    stride: int
    frames: int = 1
    platform: str = "CPU"
    workers: int = 1

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        protocol: str = "tuned",
        temperature: float = 310.0,
        interval: float = 1.0,
        chains: int = 1,
        platform: str = "CPU",
    ) -> LangevinMD:
        """The kernel of a protocol, with frames every `interval` ps (rounded to time steps) and a good step length."""
        integration = PROTOCOLS[protocol]
        system = openmm.XmlSerializer.clone(prepared.system)
        if integration.hydrogen is not None:
            repartition(system, prepared.topology, integration.hydrogen)
        if integration.rigid:
            make_rigid(system, prepared.topology)
        stride = max(1, round(interval / integration.step))
        frames = max(1, BURST.get(platform, LONG_BURST) // (stride * chains))
        # Reference has one stream of random numbers for the whole process
        workers = min(chains, len(os.sched_getaffinity(0))) if platform == "CPU" else 1
        return cls(system, temperature, integration, stride, frames, platform, workers)

    def init(self, state: State) -> Phase:
        """Positions and velocities of the state ([chains, atoms, 3] both, velocities N(0, 1)), constraints applied."""
        masses = np.array([self.system.getParticleMass(i)._value for i in range(self.system.getNumParticles())])
        thermal = np.sqrt(units.kT(self.temperature) / masses)[:, None]
        context = context_on(self.system, self.platform, integrator=openmm.VerletIntegrator(self.integration.step))
        positions, velocities = [], []
        for x, v in zip(state.positions.double(), state.velocities.double(), strict=True):
            context.setPositions(x.numpy())
            context.applyConstraints(TIGHT)
            context.setVelocities(thermal * v.numpy())
            context.applyVelocityConstraints(TIGHT)
            now = context.getState(positions=True, velocities=True)
            positions.append(_numbers(now.getPositions(asNumpy=True)))
            velocities.append(_numbers(now.getVelocities(asNumpy=True)))
        return Phase(torch.tensor(np.stack(positions)), torch.tensor(np.stack(velocities)))

    def restore(self, tensors: dict[str, Tensor]) -> Phase:
        """The phase that `Phase.tensors` was asked for."""
        return Phase(tensors["positions"], tensors["velocities"])

    def step(self, state: Phase, rng: torch.Generator) -> tuple[Phase, dict[str, Any]]:
        """The next phase, and the frames on the way.

        Returns:
            the phase after the last frame, and with leading axes [frames, chains]: `positions` (nm), `potential` and
            `kinetic` (kJ/mol).

        Raises:
            Unstable: if a chain left the finite numbers or has far too much kinetic energy.
        """
        chains = len(state.positions)
        seeds = torch.randint(1, 2**31 - 1, (chains,), generator=rng).tolist()  # 0 would mean any seed to OpenMM
        work = range(chains), state.positions.numpy(), state.velocities.numpy(), seeds
        with ThreadPoolExecutor(self.workers) as pool:
            done = list(pool.map(self._chain, *work))
        positions, velocities, potential, kinetic = (
            torch.tensor(np.stack(part, 1)) for part in zip(*done, strict=True)
        )
        return Phase(positions[-1], velocities[-1]), {
            "positions": positions,
            "potential": potential,
            "kinetic": kinetic,
        }

    def _chain(self, chain: int, x: np.ndarray, v: np.ndarray, seed: int):
        setting = self.integration
        integrator = openmm.LangevinMiddleIntegrator(self.temperature, setting.friction, setting.step)
        integrator.setRandomNumberSeed(seed)
        integrator.setConstraintTolerance(TIGHT)
        context = context_on(self.system, self.platform, integrator=integrator)
        context.setPositions(x)
        context.setVelocities(v)
        limit = HOT * 0.5 * self.freedoms() * units.kT(self.temperature)
        found = []
        for frame in range(self.frames):
            try:
                integrator.step(self.stride)
                now = context.getState(positions=True, velocities=True, energy=True)
                arrays = [_numbers(now.getPositions(asNumpy=True)), _numbers(now.getVelocities(asNumpy=True))]
                energies = [now.getPotentialEnergy()._value, now.getKineticEnergy()._value]
                stable = all(np.isfinite(part).all() for part in (*arrays, *energies)) and energies[1] < limit
            except openmm.OpenMMException:
                stable = False
            if not stable:
                raise Unstable(
                    f"expected a stable integration, got positions that are not finite or too much kinetic energy in "
                    f"chain {chain} within {(frame + 1) * self.stride} steps of {setting.step * 1000:g} fs; "
                    "correct the structure, lower the temperature or use a protocol with a shorter time step"
                )
            found.append((*arrays, *energies))
        return [np.stack(part) for part in zip(*found, strict=True)]

    def freedoms(self) -> int:
        """The number of degrees of freedom, for the kinetic temperature."""
        return 3 * self.system.getNumParticles() - self.system.getNumConstraints()


def make_rigid(system: openmm.System, topology: app.Topology) -> None:
    """Hold every bond to hydrogen at the rest length of its harmonic term.

    The terms stay: they are 0 there, so that the potential is the unconstrained one, on fewer coordinates.

    Raises:
        ValueError: if such a bond has no harmonic term.
    """
    lengths = {}
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for k in range(force.getNumBonds()):
                i, j, length, _ = force.getBondParameters(k)
                lengths[frozenset((i, j))] = length
    held = {frozenset(system.getConstraintParameters(k)[:2]) for k in range(system.getNumConstraints())}
    for hydrogen, other in _hydrogen_bonds(topology):
        pair = frozenset((hydrogen.index, other.index))
        if pair in held:
            continue
        if pair not in lengths:
            raise ValueError(f"expected a harmonic bond between {hydrogen} and {other} to make rigid, found none")
        system.addConstraint(hydrogen.index, other.index, lengths[pair])


def repartition(system: openmm.System, topology: app.Topology, mass: float) -> None:
    """Give every hydrogen `mass` amu, taken from the atom that it is bound to; no average of positions changes."""
    for hydrogen, other in _hydrogen_bonds(topology):
        taken = mass - system.getParticleMass(hydrogen.index)._value
        system.setParticleMass(hydrogen.index, mass)
        system.setParticleMass(other.index, system.getParticleMass(other.index)._value - taken)


def _hydrogen_bonds(topology):
    for one, two in topology.bonds():
        if two.element is app.element.hydrogen:
            one, two = two, one
        if one.element is app.element.hydrogen:
            yield one, two


def _numbers(quantity) -> np.ndarray:
    return np.array(quantity._value, dtype=np.float64)
