"""`TimewarpMove` among the moves and samplers of openmmtools: laws, dictionaries, random numbers."""

import copy
import json
import math
import pickle
from dataclasses import dataclass

import numpy as np
import openmm
import pytest
import torch
from md.harmonic import prepared, pvalue
from openmm import unit
from openmmtools import cache, testsystems, utils
from openmmtools.mcmc import GHMCMove, LangevinDynamicsMove, MCMCSampler, SequenceMove, WeightedMove
from openmmtools.multistate import MultiStateReporter, MultiStateSampler
from openmmtools.states import SamplerState, ThermodynamicState

from timewarp.mcmc import Independence
from timewarp.md import InputError, TimewarpMove
from timewarp.md.moves import Bound
from timewarp.md.target import Condition
from timewarp.state import State
from timewarp.units import kT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
REFERENCE = openmm.Platform.getPlatformByName("Reference")
OSCILLATOR = testsystems.HarmonicOscillator()
STIFFNESS = OSCILLATOR.K.value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2)
T = 298.0
CHANCE = 1e-5


@dataclass(frozen=True)
class Draws:
    """U/kT of the oscillator, and independent draws 1.5 times as wide as its law at 298 K."""

    temperature: float

    memoryless = True
    channels = 0
    sigma = 1.5 * math.sqrt(kT(T) / STIFFNESS)

    def energy(self, positions):
        return 0.5 * STIFFNESS / kT(self.temperature) * positions.square().sum((-2, -1))

    def __call__(self, positions):
        return self

    def log_prob(self, state):
        return -0.5 * (state.positions / self.sigma).square().sum((-2, -1))

    def sample(self, count, rng):
        state = State.at(self.sigma * torch.randn(count, 1, 1, 3, generator=rng))
        return state, self.log_prob(state)


class OscillatorMove(TimewarpMove):
    """The flow in the place of which the law is known."""

    def _bind(self, target, arrays):
        draws = Draws(target.temperature)
        return Bound(Independence(draws.energy, draws, 16))


def move(**options):
    return OscillatorMove(OSCILLATOR.topology, **{"seed": 1, "n_proposals": 1} | options)


def integrated():
    return GHMCMove(timestep=10.0 * unit.femtoseconds, n_steps=20)


def run(moves, iterations, seed=0):
    """Positions [frames, 3] nm, potential and kinetic energies in kT of the oscillator."""
    np.random.seed(seed)  # noqa: NPY002 openmmtools draws from it
    state = ThermodynamicState(OSCILLATOR.system, T * unit.kelvin)
    sampler = MCMCSampler(state, SamplerState(OSCILLATOR.positions), moves)
    frames, contexts = [], cache.ContextCache(platform=REFERENCE)
    for _ in range(iterations):
        sampler.run(1, context_cache=contexts)
        now = sampler.sampler_state
        energies = [e.value_in_unit(unit.kilojoule_per_mole) for e in (now.potential_energy, now.kinetic_energy)]
        frames.append([*now.positions.value_in_unit(unit.nanometer)[0], *energies])
    x = np.array(frames)
    return x[:, :3], x[:, 3] / kT(T), x[:, 4] / kT(T)


def three(energy):
    """The law of half the sum of three squares of standard normal variables."""
    from scipy.stats import gamma

    return gamma.cdf(energy, 1.5)


@pytest.mark.parametrize("kind", ["alone", "sequence", "weighted"])
def test_the_oscillator_keeps_its_law(kind):
    """The dynamics of openmmtools take no seed, so that only what chance never does is called wrong."""
    own = move(n_proposals=2)
    moves = {
        "alone": own,
        "sequence": SequenceMove([integrated(), own]),
        "weighted": WeightedMove([(integrated(), 0.5), (own, 0.5)]),
    }[kind]
    x, potential, kinetic = run(moves, 400)
    sigma = math.sqrt(kT(T) / STIFFNESS)
    assert min(pvalue(x[:, k] / sigma, "norm") for k in range(3)) > CHANCE
    assert pvalue(potential, three) > CHANCE
    assert pvalue(kinetic, three) > CHANCE
    expected = OSCILLATOR.get_potential_expectation(ThermodynamicState(OSCILLATOR.system, T * unit.kelvin))
    assert expected.value_in_unit(unit.kilojoule_per_mole) == pytest.approx(1.5 * kT(T))
    assert 0.2 < own.fraction_accepted < 0.9
    assert own.n_proposed == (800 if kind != "weighted" else own.n_proposed)


def test_an_oscillator_of_another_law_is_seen(monkeypatch):
    from timewarp.mcmc import accept

    monkeypatch.setattr(accept, "metropolis", lambda old, new, ratio, rng: torch.ones(old.shape, dtype=torch.bool))
    _, potential, _ = run(move(), 200)
    assert pvalue(potential, three) < CHANCE / 100


@pytest.mark.parametrize(
    "made",
    [
        move,
        lambda: TimewarpMove(prepared().topology, checkpoint="2aa", seed=3),
        lambda: SequenceMove([LangevinDynamicsMove(n_steps=5), move()]),
        lambda: WeightedMove([(GHMCMove(), 0.5), (move(), 0.5)]),
    ],
)
def test_moves_come_back_from_their_dictionaries(made):
    original = made()
    pickled = pickle.dumps(original)
    again = utils.deserialize(utils.serialize(original))
    assert pickle.dumps(again) == pickled
    assert type(pickle.loads(pickled)) is type(original)


def test_a_dictionary_is_plain_and_goes_on_with_the_same_random_numbers():
    first = move(n_proposals=3)
    run(first, 5)
    plain = json.loads(json.dumps(utils.serialize(first)))
    again = utils.deserialize(plain)
    assert again.statistics == first.statistics == {"n_accepted": first.n_accepted, "n_proposed": 15}
    assert stream(again) == stream(first)
    names = [[(a.name, a.residue.name, a.element) for a in t.atoms()] for t in (again.topology, first.topology)]
    assert names[0] == names[1]


def stream(moves, temperature=T, x=0.0):
    """The seed of the next call's random numbers."""
    return moves._stream(Condition(temperature), np.full((1, 3), x)).initial_seed()


def test_no_stream_of_random_numbers_is_used_twice():
    """openmmtools copies a move for each replica; statistics are set, and set back."""
    first = move(seed=None)
    sequence = SequenceMove([first])
    copies = [
        first,
        *(copy.deepcopy(first) for _ in range(3)),
        *(copy.deepcopy(sequence).move_list[0] for _ in range(3)),
    ]
    seeds = []
    for _ in range(4):
        seeds += [stream(m) for m in copies]
        for m in copies:
            m.reset_statistics()
    assert len(set(seeds)) == len(seeds) == 28


def test_with_a_seed_streams_are_told_by_the_state():
    fresh = [stream(move(), *where) for where in ((T, 0.0), (T, 1e-12), (450.0, 0.0))]
    assert len(set(fresh)) == 3
    assert [stream(move(), *where) for where in ((T, 0.0), (T, 1e-12), (450.0, 0.0))] == fresh
    assert stream(move(seed=2)) != fresh[0]
    x = [run(move(seed=5), 20)[0] for _ in range(2)]
    np.testing.assert_array_equal(*x)


def test_a_multistate_sampler_keeps_the_law_of_every_state_and_resumes(tmp_path):
    ladder = [T, 2000.0]
    states = [ThermodynamicState(OSCILLATOR.system, t * unit.kelvin) for t in ladder]
    file = str(tmp_path / "x.nc")
    np.random.seed(0)  # noqa: NPY002
    sampler = MultiStateSampler(mcmc_moves=SequenceMove([integrated(), move(n_proposals=2)]), number_of_iterations=100)
    sampler.sampler_context_cache = sampler.energy_context_cache = cache.ContextCache(platform=REFERENCE)
    sampler.create(states, [SamplerState(OSCILLATOR.positions)] * 2, MultiStateReporter(file, checkpoint_interval=10))
    sampler.run(n_iterations=60)
    del sampler
    again = MultiStateSampler.from_storage(MultiStateReporter(file, open_mode="r+", checkpoint_interval=10))
    done = [m.move_list[1].n_proposed for m in again.mcmc_moves]
    assert done == [120, 120]
    again.sampler_context_cache = again.energy_context_cache = cache.ContextCache(platform=REFERENCE)
    again.run()
    assert [m.move_list[1].n_proposed for m in again.mcmc_moves] == [200, 200]
    states = [s.positions.value_in_unit(unit.nanometer) for s in again.sampler_states]
    assert not np.isclose(*states).any()  # replicas are offered different proposals
    reporter = MultiStateReporter(file, open_mode="r")
    energies = np.asarray(reporter.read_energies()[0])
    for k, temperature in enumerate(ladder):
        reduced = energies[5:, k, k]
        assert pvalue(np.asarray(reduced, dtype=float), three) > CHANCE, temperature
    assert pvalue(np.asarray(energies[5:, 1, 0], dtype=float), three) < CHANCE  # of the hot one as if it were cold


def test_a_peptide_moves_with_langevin_dynamics(few_conformers):
    p = prepared()
    own = TimewarpMove(p.topology, n_proposals=8, seed=0)
    moves = SequenceMove([LangevinDynamicsMove(timestep=1 * unit.femtosecond, n_steps=10), own])
    state = ThermodynamicState(p.system, 310 * unit.kelvin)
    sampler = MCMCSampler(state, SamplerState(p.positions * unit.nanometer), moves)
    contexts = cache.ContextCache(platform=REFERENCE)
    sampler.run(3, context_cache=contexts)
    assert len(contexts) == 1  # that of the dynamics serves the move too
    assert own.n_proposed == 24
    assert own.n_accepted > 0
    now = sampler.sampler_state
    context, _ = contexts.get_context(state)
    now.apply_to_context(context)
    found = context.getState(energy=True)
    assert found.getPotentialEnergy() == now.potential_energy
    assert moves.statistics == [{}, own.statistics]
    only = SamplerState(p.positions * unit.nanometer)
    own.apply(state, only, context_cache=contexts)
    assert only.velocities is not None  # drawn where there were none


def test_a_state_that_cannot_be_moved_is_refused():
    test = testsystems.AlanineDipeptideVacuum()
    own = TimewarpMove(test.topology)
    with pytest.raises(InputError, match="expected a System without constraints, found 12"):
        own.apply(
            ThermodynamicState(test.system, 300 * unit.kelvin),
            SamplerState(test.positions),
            cache.ContextCache(platform=REFERENCE),
        )
