"""Flow moves in three homes against plain dynamics: `pytest -m long -s tests/md/test_against_dynamics.py`.

AA in implicit solvent, 310 K, hydrogens of 3 amu and steps of 2 fs for all. The homes and dynamics alone take turns in
one process, TIMEWARP_SECONDS (100 if unset) of processor time each, set-up not counted. A transition of phi is one
between its two basins, left and right of 0, as of frames 0.2 ps apart; dynamics alone makes so few that its rate is
bounded from those that it and the replicas of the reference make. Angles and energies are held against dynamics
alone, which has seen few transitions, and against the reference of tests/against.py, which has seen many; that is kept
in TIMEWARP_AGAINST if this is set. Then springs, whose law is known.
"""

import json
import os
import time
from itertools import count, islice
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from against import Side, angle_ess, equilibrium, rows
from md.harmonic import POINTS, energy_law, prepared, pvalue, reduced_energies, spring_kernel, spring_pvalues, springs
from openmm import app, unit
from openmmtools import cache
from openmmtools.mcmc import LangevinDynamicsMove, MCMCSampler, SequenceMove
from openmmtools.states import SamplerState, ThermodynamicState
from scipy.stats import chi2

from timewarp.analysis import Ensemble
from timewarp.energy import Potential
from timewarp.mcmc import bulk_ess
from timewarp.md import TimewarpMove, TimewarpReplicaExchangeSampler, TimewarpSampler
from timewarp.md.export import export
from timewarp.md.moves import Bound
from timewarp.resources import peptide_path

SECONDS = float(os.environ.get("TIMEWARP_SECONDS", "100"))
SLICE = 5.0  # s, of a turn
EVERY, STEP = 100, 0.002  # steps between frames, ps: 0.2 ps
LEFT, RIGHT = (-150, -40), (30, 90)  # degrees
KELVIN = 310 * unit.kelvin
ALONE = "dynamics alone"
SPRING_FRAMES = 4000


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


def at(context):
    return context.getState(positions=True).getPositions(asNumpy=True)._value.copy()


class SpringMove(TimewarpMove):
    """The flow in the place of which the law is known."""

    def _bind(self, target, arrays):
        return Bound(spring_kernel()(target.temperature))


class Home:
    """A stream of positions, and how many proposals were made and accepted meanwhile.

    Args:
        kind: which home.
        parts: topology, System and positions.
        platform: of the dynamics.
        seed: of all random numbers.
        kernel: in place of the flow's.
    """

    def __init__(self, kind, parts, platform, seed, kernel=None, proposals=10):
        self.parts, self.kernel, self.proposals, self.seed = parts, kernel, proposals, seed
        self.platform = openmm.Platform.getPlatformByName(platform)
        self.properties = {"Threads": "1"} if platform == "CPU" else {}
        self.count = lambda: (0, 0)
        self.stream = {
            ALONE: self.alone, "TimewarpSampler": self.sampled, "replica exchange": self.exchanged,
            "openmmtools": self.moved,
        }[kind]()  # fmt: skip
        next(self.stream)  # what is made at the first step is not counted

    def simulation(self):
        topology, system, positions = self.parts
        integrator = openmm.LangevinMiddleIntegrator(KELVIN, 1 / unit.picosecond, STEP * unit.picoseconds)
        integrator.setRandomNumberSeed(self.seed)
        made = app.Simulation(topology, system, integrator, self.platform, self.properties)
        made.context.setPositions(positions)
        made.context.setVelocitiesToTemperature(KELVIN, self.seed)
        return made

    def alone(self):
        sim = self.simulation()
        while True:
            sim.step(EVERY)
            yield at(sim.context)

    def sampled(self):
        sim = self.simulation()
        sampler = TimewarpSampler(sim, every=EVERY, seed=self.seed, kernel=self.kernel, proposals=self.proposals)
        sampler.install()
        self.count = lambda: (sampler.proposed, sampler.accepted)
        while True:
            sim.step(EVERY)
            yield at(sim.context)

    def exchanged(self):
        states = [{"temperature": t * unit.kelvin} for t in (310, 350)]
        exchange = TimewarpReplicaExchangeSampler(
            states, self.simulation(), EVERY, seed=self.seed, kernel=self.kernel, proposals=self.proposals
        )
        self.count = lambda: (sum(exchange.proposed), sum(exchange.accepted))
        found = []
        exchange.reporters.append(lambda e: found.append(e.replicaConformation[e.replicaStateIndex.index(0)]))
        while True:
            exchange.simulate(1)
            yield found.pop().getPositions(asNumpy=True)._value.copy()

    def moved(self):
        topology, system, positions = self.parts
        kind = TimewarpMove if self.kernel is None else SpringMove
        flow = kind(topology, seed=self.seed, n_proposals=self.proposals)
        self.count = lambda: (flow.n_proposed, flow.n_accepted)
        dynamics = LangevinDynamicsMove(STEP * unit.picoseconds, 1 / unit.picosecond, EVERY, False)
        state = ThermodynamicState(system, KELVIN)
        sampler = MCMCSampler(state, SamplerState(positions * unit.nanometer), SequenceMove([dynamics, flow]))
        contexts = cache.ContextCache(platform=self.platform, platform_properties=self.properties)
        while True:
            sampler.run(1, context_cache=contexts)
            yield sampler.sampler_state.positions.value_in_unit(unit.nanometer).copy()


HOMES = [ALONE, "TimewarpSampler", "replica exchange", "openmmtools"]


def acceptance(home):
    proposed, accepted = home.count()
    return f"{100 * accepted / proposed:.0f} %" if proposed else "-"


def transitions(phi):
    """Visits to one basin after the other; phi in rad."""
    where = np.select([(np.degrees(phi) > a) & (np.degrees(phi) < b) for a, b in (LEFT, RIGHT)], [1, 2])
    visits = where[where > 0]
    return int((visits[1:] != visits[:-1]).sum())


def side_of(frames):
    """Angles and energies of frames of AA."""
    p, x = prepared(), np.array(frames)
    potential = Potential(export(p.topology, p.system, p.positions), dtype=torch.float64)
    energy = potential.kilojoules(torch.as_tensor(x))[0].numpy()
    return Side.of(Ensemble.of(mdtraj.Topology.from_openmm(p.topology), x[None]), energy[None])


@pytest.mark.long
def test_the_same_distribution_and_more_transitions_of_phi(capsys, tmp_path):
    folder = Path(os.environ.get("TIMEWARP_AGAINST", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    reference = equilibrium(peptide_path("AA"), folder / "equilibrium-AA.npz")["MD"]
    homes = {kind: Home(kind, peptide(), "CPU", seed) for seed, kind in enumerate(HOMES, 1)}
    frames, spent = {k: [] for k in homes}, dict.fromkeys(homes, 0.0)
    for turn in count():
        kind = HOMES[turn % len(HOMES)]
        if min(spent.values()) >= SECONDS:
            break
        began = time.process_time()
        while time.process_time() - began < SLICE:
            frames[kind].append(next(homes[kind].stream))
        spent[kind] += time.process_time() - began
    sides = {kind: side_of(f) for kind, f in frames.items()}
    (phi,) = (name for name in reference.angles if name.startswith("phi"))
    made = {kind: transitions(side.angles[phi][0]) for kind, side in sides.items()}
    # what is known of the rate of dynamics alone: its own transitions, and those of the reference's replicas
    replicas = reference.angles[phi].reshape(-1, reference.angles[phi].shape[1] // reference.facts["each"])
    crossed = made[ALONE] + sum(transitions(one) for one in replicas)
    alone_ps = len(frames[ALONE]) * EVERY * STEP
    lived = alone_ps + (replicas.size - len(replicas)) * reference.facts["interval"]
    most = chi2.ppf(0.95, 2 * (crossed + 1)) / 2 / lived * alone_ps / spent[ALONE]  # a second, at 95 %
    found = {
        kind: {"MD": rows(sides[ALONE], side) if kind != ALONE else {}, "replicas": rows(reference, side)}
        for kind, side in sides.items()
    }
    (folder / "homes.json").write_text(json.dumps({"seconds": spent, "transitions": made, **found}))
    names = [*reference.angles, "energy"]
    with capsys.disabled():
        ess = [round(angle_ess(x)) for x in reference.angles.values()]
        print(f"\nAA, 310 K: {SECONDS:.0f} s of a core each, one frame in 0.2 ps")
        print(f"  reference: {reference.energy.size} frames of many replicas, ESS {ess}")
        print(f"  ESS, and p against dynamics alone and against the reference, of {', '.join(names)}")
        print(f"  {'':17} {'frames':>6} {'accepted':>8} {'transitions of phi':>24}")
        for kind in HOMES:
            ess = [found[kind]["replicas"][name]["ess"][1] for name in names]
            ps = [[each[name]["p"] for name in names] for each in found[kind].values() if each]
            rate = made[kind] / spent[kind]
            told = f"{made[kind]:5} = {rate:6.3f} /s" + (f", >= {rate / most:4.0f} x" if kind != ALONE else "")
            print(f"  {kind:17} {len(frames[kind]):6} {acceptance(homes[kind]):>8}  {told:>24}   {ess}  {ps}")
        print(f"  dynamics alone and in the reference: {crossed} transitions in {lived / 1000:.2f} ns; at", end=" ")
        print(f"{alone_ps / spent[ALONE]:.1f} ps a second, at most {most:.4f} /s (95 %)")
        for kind in HOMES:
            row = found[kind]["replicas"]["energy"]
            (a, b), (c, d) = row["means"], row["errors"]
            print(f"  energy: {kind:17} {b:.2f} +- {d:.2f}, replicas {a:.2f} +- {c:.2f} kJ/mol, {row['sigma']} sigma")
    flows = HOMES[1:]
    ps = [row["p"] for kind in flows for each in found[kind].values() for row in each.values()]
    assert min(ps) > 0.01 / len(ps)
    assert max(abs(found[kind]["replicas"]["energy"]["sigma"]) for kind in flows) < 4
    assert all(made[kind] / spent[kind] > most for kind in flows)


@pytest.mark.long
def test_springs_have_their_law_in_every_home(capsys):
    topology, system = springs()
    parts, least = (topology, system, POINTS.numpy()), {}
    with capsys.disabled():
        print(f"\nsprings, 310 K: {SPRING_FRAMES} frames, one each {EVERY} steps, K-S against the law")
        print(f"  {'':17} {'accepted':>8} {'least ESS':>9} {'ESS / s':>8}   p of the coordinates; of the energy")
        for seed, kind in enumerate(HOMES, 1):
            home = Home(kind, parts, "Reference", seed, spring_kernel(), 2)
            began = time.process_time()
            x = np.array(list(islice(home.stream, SPRING_FRAMES)))
            spent = time.process_time() - began
            coordinates, energy = spring_pvalues(x), pvalue(reduced_energies(x), energy_law)
            least[kind] = min(*coordinates, energy)
            ess = min(bulk_ess(x[None, :, i, k]) for i in range(2) for k in range(3))
            ps = ", ".join(f"{p:.3f}" for p in coordinates)
            print(f"  {kind:17} {acceptance(home):>8} {ess:9.0f} {ess / spent:8.1f}   {ps}; {energy:.3f}")
    assert min(least.values()) > 0.01 / (7 * len(least))
