"""Flow moves in three homes against plain dynamics: `pytest -m long -s tests/md/test_against_dynamics.py`.

AA in implicit solvent, 310 K, hydrogens of 3 amu and steps of 2 fs for all. They take turns of some seconds in one
process, TIMEWARP_SECONDS (300 if unset) for each, set-up not counted. A transition of phi is one between its two
basins, left and right of 0, as of frames 0.2 ps apart.
"""

import os
import time
from itertools import count

import mdtraj
import numpy as np
import openmm
import pytest
from md.harmonic import prepared
from openmm import app, unit
from openmmtools import cache
from openmmtools.mcmc import LangevinDynamicsMove, MCMCSampler, SequenceMove
from openmmtools.states import SamplerState, ThermodynamicState

from timewarp.analysis import kolmogorov_smirnov, overlap
from timewarp.mcmc import bulk_ess
from timewarp.md import TimewarpMove, TimewarpReplicaExchangeSampler, TimewarpSampler

SECONDS = float(os.environ.get("TIMEWARP_SECONDS", "300"))
SLICE = 10.0  # s, of a turn
EVERY = 100  # steps: 0.2 ps
LEFT, RIGHT = (-150, -40), (30, 90)  # degrees
KELVIN = 310 * unit.kelvin


def peptide():
    p = prepared()
    system = openmm.XmlSerializer.clone(p.system)
    for a, b in p.topology.bonds():
        for heavy, hydrogen in ((a, b), (b, a)):
            if hydrogen.element is app.element.hydrogen:
                more = 3 * unit.amu - system.getParticleMass(hydrogen.index)
                system.setParticleMass(hydrogen.index, 3 * unit.amu)
                system.setParticleMass(heavy.index, system.getParticleMass(heavy.index) - more)
    return p.topology, system, p.positions


def simulation(seed):
    topology, system, positions = peptide()
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 1 / unit.picosecond, 2 * unit.femtoseconds)
    integrator.setRandomNumberSeed(seed)
    made = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    made.context.setPositions(positions)
    made.context.setVelocitiesToTemperature(KELVIN, seed)
    return made


def at(context):
    return context.getState(positions=True).getPositions(asNumpy=True)._value.copy()


def plain():
    sim = simulation(1)
    while True:
        sim.step(EVERY)
        yield at(sim.context), 1


def sampled():
    sim = simulation(2)
    sampler = TimewarpSampler(sim, every=EVERY, seed=2).install()
    while True:
        sim.step(EVERY)
        yield at(sim.context), sampler.acceptance


def exchanged():
    sim = simulation(3)
    states = [{"temperature": t * unit.kelvin} for t in (310, 350)]
    exchange = TimewarpReplicaExchangeSampler(states, sim, EVERY, seed=3)
    found = []
    exchange.reporters.append(lambda e: found.append(e.replicaConformation[e.replicaStateIndex.index(0)]))
    while True:
        exchange.simulate(1)
        x = found.pop().getPositions(asNumpy=True)._value.copy()
        yield x, [round(a / p, 3) for a, p in zip(exchange.accepted, exchange.proposed, strict=True)]


def moved():
    topology, system, positions = peptide()
    flow = TimewarpMove(topology, seed=4)
    dynamics = LangevinDynamicsMove(2 * unit.femtoseconds, 1 / unit.picosecond, EVERY, False)
    sampler = MCMCSampler(
        ThermodynamicState(system, KELVIN), SamplerState(positions * unit.nanometer), SequenceMove([dynamics, flow])
    )
    platform = openmm.Platform.getPlatformByName("CPU")
    contexts = cache.ContextCache(platform=platform, platform_properties={"Threads": "1"})
    while True:
        sampler.run(1, context_cache=contexts)
        yield sampler.sampler_state.positions.value_in_unit(unit.nanometer).copy(), flow.fraction_accepted


def transitions(phi):
    """Visits to one basin after the other."""
    where = np.select([(phi > a) & (phi < b) for a, b in (LEFT, RIGHT)], [1, 2])
    visits = where[where > 0]
    return int((visits[1:] != visits[:-1]).sum())


def angles_of(frames):
    trajectory = mdtraj.Trajectory(np.array(frames), mdtraj.Topology.from_openmm(prepared().topology))
    return {
        name: np.degrees(f(trajectory)[1][:, 0])
        for name, f in (("phi", mdtraj.compute_phi), ("psi", mdtraj.compute_psi))
    }


def unrolled(a, b):
    """Angles from where both have fewest."""
    counts, edges = np.histogram(np.concatenate([a, b]), bins=36, range=(-180, 180))
    cut = edges[int(counts.argmin())]
    return (a - cut) % 360, (b - cut) % 360


@pytest.mark.long
def test_the_same_distribution_and_more_transitions_of_phi(capsys):
    kinds = {
        "dynamics alone": plain(),
        "TimewarpSampler": sampled(),
        "replica exchange": exchanged(),
        "openmmtools": moved(),
    }
    frames, spent, said = ({k: [] for k in kinds}, dict.fromkeys(kinds, 0.0), {})
    for stream in kinds.values():
        next(stream)  # what is made at the first step is not counted
    for turn in count():
        kind = list(kinds)[turn % len(kinds)]
        if min(spent.values()) >= SECONDS:
            break
        began = time.monotonic()
        while time.monotonic() - began < SLICE:
            x, said[kind] = next(kinds[kind])
            frames[kind].append(x)
        spent[kind] += time.monotonic() - began
    angles = {kind: angles_of(f) for kind, f in frames.items()}
    rate = {kind: transitions(angles[kind]["phi"]) / spent[kind] for kind in kinds}
    smallest = 1.0
    with capsys.disabled():
        print(
            f"\n{SECONDS:.0f} s each: frames of 0.2 ps, acceptance, transitions of phi, K-S p of phi and psi, overlap"
        )
        for kind in kinds:
            told = []
            for name in ("phi", "psi"):
                a, b = unrolled(angles["dynamics alone"][name], angles[kind][name])
                ess = [_ess(angles[k][name]) for k in ("dynamics alone", kind)]
                p = kolmogorov_smirnov(a, b, *ess).pvalue
                smallest = min(smallest, p)
                told.append(f"{p:.3f} (ESS {ess[0]:.0f}, {ess[1]:.0f}; overlap {overlap(a, b):.3f})")
            n = round(rate[kind] * spent[kind])
            print(f"  {kind:18} {len(frames[kind]):6} {said[kind]!s:16} {n:5} = {rate[kind]:.3f}/s  {'  '.join(told)}")
        least = max(rate["dynamics alone"], 1 / spent["dynamics alone"])
        print("  transitions a second against dynamics:", {k: round(r / least, 1) for k, r in rate.items()})
    assert smallest > 0.001
    assert all(rate[kind] > least for kind in list(kinds)[1:])


def _ess(angle):
    x = np.radians(angle)[None]
    return max(2.0, min(bulk_ess(np.cos(x)), bulk_ess(np.sin(x))))
