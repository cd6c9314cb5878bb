"""OpenMM as fast as a user could run it tonight: one Context that stays, frame by frame, for as long as is asked.

`LangevinMD` repeats itself bit for bit, and pays for it; this is the baseline that speed-ups are measured against, and
pays for nothing.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import openmm
from jaxtyping import Float
from openmm import app

from timewarp import units
from timewarp.md.energy import context_on
from timewarp.md.platforms import usable
from timewarp.md.reference import HOT, PROTOCOLS, Integration, Unstable, make_rigid, repartition
from timewarp.md.system import Prepared

INTEGRATIONS = PROTOCOLS | {"2fs": Integration(step=0.002, friction=1.0, rigid=True, hydrogen=None)}
TRIAL, TRIALS = 0.2, 4  # s of integration by which platforms are compared, and how often; the best of each counts
FAST = {"CPU": {"Threads": "1", "DeterministicForces": "false"}, "CUDA": {"DeterministicForces": "false"}}
HOTTEST = 600.0  # K, of replica exchange
SWAPS = 0.3  # accepted between neighbouring temperatures
ROUND = 100  # time steps between exchanges


class Frame(NamedTuple):
    """Positions in nm, potential energy in kJ/mol, and the time that was integrated since the frame before, in ps."""

    positions: Float[np.ndarray, "atoms 3"]
    potential: float
    picoseconds: float


def modified(prepared: Prepared, integration: Integration) -> openmm.System:
    """The System with the masses and constraints of an integration."""
    system = openmm.XmlSerializer.clone(prepared.system)
    if integration.hydrogen is not None:
        repartition(system, prepared.topology, integration.hydrogen)
    if integration.rigid:
        make_rigid(system, prepared.topology)
    return system


def fastest_platform(prepared: Prepared, temperature: float = 310.0) -> str:
    """The OpenMM platform that integrates this peptide fastest on one core, or on the GPU where there is one.

    Raises:
        ValueError: if none works.
    """
    integration = INTEGRATIONS["tuned"]
    rates: dict[str, float] = {}
    names = usable()
    for _ in range(TRIALS):  # in turns, so that a busy machine is busy for all
        for name in names:
            try:
                context = _context(prepared, integration, name, temperature, 1)
                context.getIntegrator().step(5)
                began, steps = time.perf_counter(), 0
                while time.perf_counter() - began < TRIAL:
                    context.getIntegrator().step(10)
                    context.getState(energy=True)
                    steps += 10
            except (ValueError, openmm.OpenMMException):
                continue
            rates[name] = max(rates.get(name, 0.0), steps / (time.perf_counter() - began))
    if not rates:
        raise ValueError("expected an OpenMM platform that works here, found none")
    return max(rates, key=rates.__getitem__)


def frames(
    prepared: Prepared, protocol: str, platform: str, temperature: float, interval: float, seed: int
) -> Iterator[Frame]:
    """Langevin dynamics from the prepared structure with thermal velocities, a frame every `interval` ps, for ever.

    Raises:
        Unstable: if the integration left the finite numbers, or heats up.
    """
    integration = INTEGRATIONS[protocol]
    context = _context(prepared, integration, platform, temperature, seed)
    system, stride = context.getSystem(), max(1, round(interval / integration.step))
    freedoms = 3 * system.getNumParticles() - system.getNumConstraints()
    limit = HOT * 0.5 * freedoms * units.kT(temperature)
    while True:
        context.getIntegrator().step(stride)
        state = context.getState(positions=True, energy=True)
        positions = np.array(state.getPositions(asNumpy=True)._value, dtype=np.float32)
        potential, kinetic = state.getPotentialEnergy()._value, state.getKineticEnergy()._value
        if not (np.isfinite(positions).all() and math.isfinite(potential) and kinetic < limit):
            raise Unstable(f"expected a stable integration, got one that left the finite numbers ({protocol})")
        yield Frame(positions, potential, stride * integration.step)


def exchange(prepared: Prepared, platform: str, temperature: float, seed: int) -> Iterator[Frame]:
    """Parallel tempering by OpenMM's own `ReplicaExchangeSampler`: the coldest replica after each exchange, for ever.

    Replicas move by the `tuned` dynamics; their temperatures are evenly spaced in the logarithm up to `HOTTEST`, as
    many as let about `SWAPS` of the exchanges be accepted (harmonic heat capacity). `picoseconds` are of all replicas.

    Raises:
        ValueError: if this OpenMM has no such sampler.
        Unstable: if a replica left the finite numbers.
    """
    if not hasattr(app, "ReplicaExchangeSampler"):
        raise ValueError(f"expected an OpenMM with ReplicaExchangeSampler, found {openmm.__version__}")
    integration = INTEGRATIONS["tuned"]
    integrator = openmm.LangevinMiddleIntegrator(temperature, integration.friction, integration.step)
    integrator.setRandomNumberSeed(seed)
    where = openmm.Platform.getPlatformByName(platform), FAST.get(platform, {})
    simulation = app.Simulation(prepared.topology, modified(prepared, integration), integrator, *where)
    simulation.context.setPositions(prepared.positions)
    simulation.context.setVelocitiesToTemperature(temperature, seed)
    random.seed(seed)  # which the sampler draws its exchanges from
    states = [{"temperature": t} for t in ladder(temperature, HOTTEST, prepared.system.getNumParticles())]
    sampler = app.ReplicaExchangeSampler(states, simulation, ROUND)
    while True:
        sampler.simulate(1)
        cold = sampler.replicaStateIndex.index(0)
        positions = np.array(sampler.replicaConformation[cold].getPositions(asNumpy=True)._value, dtype=np.float32)
        energy = sampler.replicaStateEnergy[cold][0]
        potential = float(getattr(energy, "_value", energy))
        if not (np.isfinite(positions).all() and math.isfinite(potential)):
            raise Unstable("expected stable replicas, got one that left the finite numbers")
        yield Frame(positions, potential, len(states) * ROUND * integration.step)


def ladder(coldest: float, hottest: float, atoms: int) -> list[float]:
    """Temperatures in K between which about `SWAPS` of the exchanges of `atoms` harmonic atoms are accepted.

    The acceptance is erfc(L/2) with L = ln(ratio) sqrt(heat capacity / k), see `timewarp.mcmc.tempering.spaced`.
    """
    if hottest <= coldest:
        return [coldest]
    step = 2 * _erfc_inverse(SWAPS) / math.sqrt(1.5 * atoms)
    count = 1 + max(1, math.ceil(math.log(hottest / coldest) / step))
    return np.geomspace(coldest, hottest, count).tolist()


def _erfc_inverse(value: float) -> float:
    from scipy.special import erfcinv

    return float(erfcinv(value))


def _context(prepared, integration: Integration, platform: str, temperature: float, seed: int) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(temperature, integration.friction, integration.step)
    integrator.setRandomNumberSeed(seed)
    context = context_on(modified(prepared, integration), platform, FAST.get(platform), integrator)
    context.setPositions(prepared.positions)
    context.applyConstraints(1e-6)
    context.setVelocitiesToTemperature(temperature, seed)
    return context
