"""The tests that openmmtools has for its own moves, run as they are with a `TimewarpMove` among the moves.

Their functions find moves and test systems by the names of their modules, where these are exchanged: dynamics for a
move of ours, and alanine dipeptide for itself without constraints. Left out are those of other things: minimisation,
integrators (restarts, splittings, tolerances), the barostat.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from openmmtools import cache, mcmc, multistate, testsystems
from openmmtools.tests import test_mcmc as theirs

from timewarp.mcmc import Independence, accept
from timewarp.md import TimewarpMove
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.moves import Bound
from timewarp.state import State

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
REFERENCE = openmm.Platform.getPlatformByName("Reference")


def _sampling():
    """Their tests of samplers: the module imports `requests` for one that is not run here."""
    missing = find_spec("requests") is None
    if missing:
        sys.modules["requests"] = ModuleType("requests")
    try:
        return import_module("openmmtools.tests.test_sampling")
    finally:
        if missing:
            del sys.modules["requests"]


SPACING = 1e-2  # nm, of the differences that tell a spring's stiffness


class Draws:
    """Independent draws about the points of springs, `wider` times as wide as their law."""

    memoryless = True
    channels = 0

    def __init__(self, energy, start, wider):
        steps = SPACING * torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        up, down, here = energy(start + steps[:, None])
        each = (up + down - 2 * here) / SPACING**2 / len(start)  # U'' / kT of one atom
        self.sigma = wider / float(each) ** 0.5
        self.points = start

    def __call__(self, positions):
        return self

    def log_prob(self, state):
        u = (state.positions - self.points) / self.sigma
        return -0.5 * u.square().sum((-2, -1))

    def sample(self, count, rng):
        state = State.at(self.points + self.sigma * torch.randn(count, 1, *self.points.shape, generator=rng))
        return state, self.log_prob(state)


class SpringMove(TimewarpMove):
    """Draws for springs in the place of the flow, which knows peptides alone; everything else is its own."""

    def __init__(self, *_, n_proposals=2, **__):
        super().__init__(testsystems.HarmonicOscillator().topology, n_proposals=n_proposals, seed=1)

    def _bind(self, target, arrays):
        context = openmm.Context(target.system, openmm.VerletIntegrator(0.001), REFERENCE)
        context.setPositions(target.positions)
        openmm.LocalEnergyMinimizer.minimize(context, 1e-4)
        points = context.getState(positions=True).getPositions(asNumpy=True)._value
        energy = OpenMMEnergy(target.system, target.temperature, "Reference")
        return Bound(Independence(energy, Draws(energy, torch.as_tensor(points, dtype=torch.float32), 1.5), 16))


@pytest.fixture(autouse=True)
def local_cache(monkeypatch):
    """Their tests empty and fill the global cache of Contexts; this is another one."""
    np.random.seed(1)  # noqa: NPY002 openmmtools draws from it
    monkeypatch.setattr(cache, "global_context_cache", cache.ContextCache(platform=REFERENCE))
    monkeypatch.setattr(theirs, "debug", False)


def alanine_dipeptide(kind="Implicit"):
    return getattr(testsystems, f"AlanineDipeptide{kind}")(constraints=None)


@pytest.fixture
def alanine(monkeypatch, few_conformers):
    """Alanine dipeptide, unconstrained and without water, wherever they take one."""
    free = SimpleNamespace(
        AlanineDipeptideImplicit=alanine_dipeptide,
        AlanineDipeptideExplicit=alanine_dipeptide,
        AlanineDipeptideVacuum=lambda: alanine_dipeptide("Vacuum"),
    )
    monkeypatch.setattr(theirs, "testsystems", free)


def flow(*_, n_proposals=2, context_cache=None, **__):
    """The flow's move, whatever an integrator would be told."""
    topology = alanine_dipeptide().topology
    return TimewarpMove(topology, n_proposals=n_proposals, context_cache=context_cache)


ANALYTICAL = [
    (testsystems.HarmonicOscillator, SpringMove),
    (testsystems.HarmonicOscillator, lambda: mcmc.WeightedMove([(_ghmc(), 0.5), (SpringMove(), 0.5)])),
    (testsystems.HarmonicOscillator, lambda: mcmc.SequenceMove([_ghmc(), SpringMove()])),
    (lambda: testsystems.HarmonicOscillatorArray(N=4), lambda: mcmc.SequenceMove([_langevin(), SpringMove()])),
]


def _ghmc():
    return mcmc.GHMCMove(timestep=10.0 * unit.femtoseconds, n_steps=20)


def _langevin():
    return mcmc.LangevinDynamicsMove(timestep=10.0 * unit.femtoseconds, n_steps=20)


def test_expectations_of_analytical_systems(monkeypatch):
    cases = [(type(made()).__name__, made(), move()) for made, move in ANALYTICAL]
    monkeypatch.setattr(theirs, "analytical_testsystems", cases)
    theirs.test_mcmc_expectations()
    moves = [SpringMove, mcmc.SequenceMove, mcmc.WeightedMove]
    assert {type(move) for _, _, move in cases} == set(moves)
    assert 0 < cases[0][2].n_accepted < cases[0][2].n_proposed == 1000


def test_their_expectations_see_a_test_that_is_left_out(monkeypatch):
    monkeypatch.setattr(accept, "metropolis", lambda old, new, ratio, rng: torch.ones(old.shape, dtype=torch.bool))
    with pytest.raises(AssertionError, match="Potential energy expectation"):
        theirs.subtest_mcmc_expectation(testsystems.HarmonicOscillator(), SpringMove())


@pytest.mark.parametrize("name", ["IntegratorMove", "GHMCMove", "HMCMove", "LangevinDynamicsMove"])
def test_serialization(monkeypatch, name):
    """Alone, with a cache, in a SequenceMove and in a WeightedMove, by the place of the name in their list."""
    monkeypatch.setattr(theirs, name, flow)
    theirs.test_moves_serialization()


CACHES = [
    "test_default_context_cache",
    "test_default_context_cache_apply",
    "test_context_cache_specific_apply",
    "test_context_cache_local_vs_global",
]


@pytest.mark.parametrize("name", [CACHES[0], *(pytest.param(name, marks=pytest.mark.long) for name in CACHES[1:])])
def test_beside_dynamics_it_takes_no_context_of_its_own(monkeypatch, alanine, name):
    """Two kinds of dynamics make the two Contexts that they count, and our move after them no third."""
    made = []

    def sequence(moves):
        made.append(flow())
        return mcmc.SequenceMove([*moves, made[-1]])

    monkeypatch.setattr(theirs, "SequenceMove", sequence)
    getattr(theirs, name)()
    assert all(move.n_proposed for move in made) or name == CACHES[0]


@pytest.mark.parametrize(
    ("name", "exchanged"),
    [
        ("test_context_cache_sequence_apply", "GHMCMove"),
        *(
            pytest.param(*both, marks=pytest.mark.long)
            for both in (
                ("test_context_cache_compatibility", "LangevinDynamicsMove"),
                ("test_dummy_context_cache", "LangevinDynamicsMove"),
                ("test_mcmc_move_context_cache_shallow_copy", "LangevinSplittingDynamicsMove"),
            )
        ),
    ],
)
def test_caches_of_contexts_in_the_place_of_dynamics(monkeypatch, alanine, name, exchanged):
    monkeypatch.setattr(theirs, exchanged, flow)
    getattr(theirs, name)()


def test_accepted_it_moves_and_rejections_occur(monkeypatch, alanine):
    """Theirs of Metropolised moves, which shrinks a subset of atoms that our move does not know."""
    tried = []

    def one(atom_subset):
        tried.append(flow(n_proposals=1))
        tried[-1].atom_subset = atom_subset
        return tried[-1]

    one.__name__ = "TimewarpMove"
    monkeypatch.setattr(theirs, "MetropolizedMove", SimpleNamespace(__subclasses__=lambda: [one]))
    theirs.test_metropolized_moves()
    (move,) = tried
    assert 0 < move.n_accepted < move.n_proposed


THEIRS = _sampling().TestHarmonicOscillatorsMultiStateSampler


class OscillatorsInStates(THEIRS):
    """Their free energies of five oscillators, with our move in the place of their displacements."""

    N_ITERATIONS = 250
    test_entropy_enthalpy = pytest.mark.long(THEIRS.test_entropy_enthalpy)

    @pytest.fixture(autouse=True)
    def ours(self, monkeypatch):
        monkeypatch.setattr(mcmc, "MCDisplacementMove", lambda displacement_sigma: SpringMove(n_proposals=1))


@pytest.mark.long
class TestOscillatorsInStates(OscillatorsInStates):
    """Each replica in its state."""


@pytest.mark.long
class TestOscillatorsExchanged(OscillatorsInStates):
    """Replicas that exchange their states."""

    N_SAMPLERS = 5
    SAMPLER = multistate.ReplicaExchangeSampler
    ANALYZER = multistate.ReplicaExchangeAnalyzer


@pytest.mark.long
def test_their_free_energies_are_off_if_the_move_is_wrong(monkeypatch):
    monkeypatch.setattr(accept, "metropolis", lambda old, new, ratio, rng: torch.ones(old.shape, dtype=torch.bool))
    monkeypatch.setattr(mcmc, "MCDisplacementMove", lambda displacement_sigma: SpringMove(n_proposals=1))
    TestOscillatorsInStates.setup_class()
    try:
        with pytest.raises(Exception, match="exceeds MAX_SIGMA"):
            TestOscillatorsInStates().run()
    finally:
        TestOscillatorsInStates.teardown_class()
