"""Flow moves in OpenMM's replica exchange: every temperature keeps its own law."""

import numpy as np
import pytest
from md.harmonic import (
    POINTS,
    T,
    energy_law,
    prepared,
    pvalue,
    reduced_energies,
    simulation,
    spring_kernel,
    spring_pvalues,
    springs,
)
from openmm import app, unit

from timewarp.md import InputError, TimewarpReplicaExchangeSampler

LADDER = [T, 450.0, 620.0]


@pytest.fixture(autouse=True)
def repeatable():
    import random

    random.seed(1)  # OpenMM's exchanges draw from it


def spring_ladder(**options):
    sim = simulation(*springs(), POINTS, friction=5.0)
    states = [{"temperature": t * unit.kelvin} for t in LADDER]
    options = {"proposals": 2} | options
    return TimewarpReplicaExchangeSampler(states, sim, 20, seed=4, kernel=spring_kernel(), **options)


def by_state(exchange, iterations):
    """Positions in each state after each iteration, and which replica was there."""
    frames, who = [], []

    def keep(sampler):
        order = np.argsort(sampler.replicaStateIndex)
        at = [sampler.replicaConformation[i].getPositions(asNumpy=True)._value for i in order]
        frames.append(np.array(at))
        who.append(order)

    exchange.reporters.append(keep)
    exchange.simulate(iterations)
    return np.array(frames), np.array(who)


def test_every_temperature_has_its_law():
    exchange = spring_ladder()
    frames, who = by_state(exchange, 250)
    for state, temperature in enumerate(LADDER):
        assert min(spring_pvalues(frames[10:, state], temperature)) > 0.01 / 18
        assert pvalue(reduced_energies(frames[10:, state], temperature), energy_law) > 0.01 / 3
        assert exchange.proposed[state] == 500
        assert 0.1 < exchange.accepted[state] / 500 < 0.9
    assert pvalue(reduced_energies(frames[10:, 2]), energy_law) < 1e-4
    assert (who[1:] != who[:-1]).mean() > 0.3  # replicas go up and down
    assert exchange.sampler.proposed == sum(exchange.proposed)


def test_a_move_at_the_temperature_of_another_state_is_seen(monkeypatch):
    exchange = spring_ladder(proposals=10)
    lowest = exchange.sampler._condition()
    monkeypatch.setattr(exchange.sampler, "_condition", lambda: lowest)
    frames, _ = by_state(exchange, 150)
    assert pvalue(reduced_energies(frames[10:, 2], LADDER[2]), energy_law) < 1e-4


def test_a_peptide_is_moved_at_every_temperature(few_conformers):
    p = prepared()
    sim = simulation(p.topology, p.system, p.positions, step=0.001)
    states = [{"temperature": t * unit.kelvin} for t in (310.0, 360.0)]
    exchange = TimewarpReplicaExchangeSampler(states, sim, 20, seed=0, proposals=8)
    assert isinstance(exchange, app.ReplicaExchangeSampler)
    exchange.simulate(3)
    assert exchange.proposed == [24, 24]
    assert min(exchange.accepted) > 0
    assert [c.temperature for c in exchange.sampler._moves.bound] == [310.0, 360.0]
    energy = sim.context.getState(energy=True).getPotentialEnergy()  # of the last replica, moved
    assert exchange.replicaStateEnergy[1][0] == energy


def test_force_groups_are_refused():
    sim = simulation(*springs(), POINTS)
    with pytest.raises(InputError, match="found force groups"):
        TimewarpReplicaExchangeSampler([{"groups": {0}}, {"groups": {1}}], sim, 10, kernel=spring_kernel())
