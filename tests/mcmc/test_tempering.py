"""Parallel tempering keeps every rung's law, crosses what its coldest rung cannot, and no other formula does."""

import inspect
import math
import textwrap
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp.kernel import Kernel, run
from timewarp.mcmc import accept, dynamics
from timewarp.mcmc import tempering as module
from timewarp.mcmc.chain import single_test
from timewarp.mcmc.dynamics import Langevin
from timewarp.mcmc.local import Hamiltonian
from timewarp.mcmc.tempering import Tempering, adapted, spaced
from timewarp.mcmc.torsions import Torsions
from timewarp.state import State

from . import test_torsions as polar
from .toys import seeded

HEATS = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
LADDERS = 1500


def wells(x):
    """U/kT: wells at -1 and 1, 8 kT deep, the left one deeper by about 1 kT."""
    return 8 * (x * x - 1) ** 2 + 0.5 * x


@dataclass(frozen=True)
class Spots:
    positions: torch.Tensor
    energy: torch.Tensor

    @property
    def state(self):
        return State.at(self.positions)

    @property
    def tempered(self):
        return -self.energy

    def taken(self, index, scale):
        return Spots(self.positions[index], self.energy[index])

    def put(self, index, other):
        return Spots(*(getattr(self, f.name).index_copy(0, index, getattr(other, f.name)) for f in fields(self)))

    def tensors(self):
        return {"positions": self.positions, "energy": self.energy}


@dataclass(frozen=True)
class Walk:
    """Metropolis random walk of one coordinate in the two wells."""

    heat: torch.Tensor | float = 1.0
    exact = True

    def heated(self, heat):
        return Walk(heat)

    def init(self, state):
        return Spots(state.positions, wells(state.positions[:, 0, 0]))

    def restore(self, tensors):
        return Spots(**tensors)

    def moved(self, spots, positions, energy):
        return Spots(positions, energy), 0

    def step(self, spots, rng):
        x = spots.positions + 0.3 * torch.randn(spots.positions.shape, generator=rng, dtype=torch.float64)
        x[..., 1:] = 0.0
        new = self.init(State.at(x))
        passed = accept.metropolis(spots.energy / self.heat, new.energy / self.heat, 0 * new.energy, rng)
        spots = Spots(
            torch.where(passed[:, None, None], x, spots.positions), torch.where(passed, new.energy, spots.energy)
        )
        return spots, single_test(passed, spots.energy, len(x))


GRID = np.linspace(-3.5, 3.5, 7001)


def cdf(heat):
    weight = np.exp(-wells(GRID) / float(heat))
    total = np.cumsum(weight) - 0.5 * weight
    return total / total[-1]


def drawn(heats, ladders, rng):
    """Exact draws of every rung, [ladders * rungs, 1, 3]."""
    u = torch.rand(ladders, len(heats), generator=rng, dtype=torch.float64).numpy()
    x = torch.zeros(ladders, len(heats), 3, dtype=torch.float64)
    for rung, heat in enumerate(heats):
        x[:, rung, 0] = torch.as_tensor(np.interp(u[:, rung], cdf(heat), GRID))
    return x.view(-1, 1, 3)


def laws(kind=Tempering, steps=12, **how):
    """K-S p of each rung after some steps from exact draws."""
    rng = seeded(0)
    tempering = kind(Walk(), HEATS, **how)
    state = tempering.of(Walk().init(State.at(drawn(HEATS, LADDERS, rng))))
    *_, (state, _) = run(tempering, state, steps, rng)
    x = state.replicas.positions[:, 0, 0].view(LADDERS, -1).numpy()
    return [stats.kstest(x[:, k], np.interp, (GRID, cdf(heat))).pvalue for k, heat in enumerate(HEATS)], state


def mutated(method, text, instead):
    """The kernel with one formula of it changed."""
    source = textwrap.dedent(inspect.getsource(getattr(Tempering, method)))
    assert source.count(text) == 1, "the formula is written otherwise now: change the test with it"
    scope = dict(vars(module))
    exec("from __future__ import annotations\n" + source.replace(text, instead), scope)
    return type("Mutated", (Tempering,), {method: scope[method]})


def test_it_is_a_kernel_as_exact_as_what_it_heats():
    assert isinstance(Tempering(Walk(), HEATS), Kernel)
    assert Tempering(Walk(), HEATS).exact
    springs = Langevin(Springs(), torch.ones(1))
    assert not Tempering(springs, HEATS).exact
    assert not Tempering(Walk(), HEATS, local=springs).exact


def test_every_rung_keeps_its_law():
    found, state = laws()
    assert min(found) > 1e-3
    assert state.tried.tolist() == [6 * LADDERS] * 3
    assert ((state.acceptance > 0.1) & (state.acceptance < 0.95)).all()
    assert not torch.equal(state.origin, torch.arange(4).expand(LADDERS, -1))
    assert (state.origin.sort(1).values == torch.arange(4)).all()  # nothing is lost or doubled


@pytest.mark.parametrize(
    ("method", "text", "instead"),
    [
        ("_accepted", "inverse[:-1] - inverse[1:]", "inverse[1:] - inverse[:-1]"),
        ("_accepted", "w[:, 1:] - w[:, :-1]", "w[:, :-1] - w[:, 1:]"),
        ("_accepted", "inverse = 1 / self.heats.to(w)", "inverse = -self.heats.to(w).log()"),
        ("_accepted", "inverse[:-1] - inverse[1:]", "inverse[:-1]"),
        ("_swapped", "up.long() - down.long()", "up.long()"),
    ],
)
def test_a_broken_swap_does_not(method, text, instead):
    assert min(laws(mutated(method, text, instead))[0]) < 1e-6


def test_it_crosses_what_the_coldest_rung_cannot():
    """All begin in the shallow well: the cold walk alone stays, the ladder finds the populations of both."""
    rng = seeded(1)
    start = State.at(torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64).expand(400, -1, -1))
    *_, (alone, _) = run(Walk(), Walk().init(start), 300, rng)
    tempering = Tempering(Walk(), HEATS)
    *_, (state, info) = run(tempering, tempering.init(start), 300, rng)
    left = float((state.state.positions[:, 0, 0] < 0).double().mean())
    expected = float(np.interp(0.0, GRID, cdf(1.0)))
    assert (alone.positions[:, 0, 0] < 0).double().mean() < 0.2
    assert left == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 400))
    assert info["accepted"].shape == info["energy"].shape == (400,)
    assert torch.equal(info["energy"], wells(state.state.positions[:, 0, 0]))


def test_it_goes_on_from_what_was_saved():
    rng = seeded(2)
    tempering = Tempering(Walk(), HEATS, between=2)
    state = tempering.init(State.at(drawn(HEATS[:1], 3, rng)))
    state, _ = tempering.step(state, rng)
    saved = rng.get_state()
    one, _ = tempering.step(state, rng)
    two, _ = tempering.step(tempering.restore(state.tensors()), seeded(0).set_state(saved))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), two.tensors().values(), strict=True))


@dataclass(frozen=True)
class Springs:
    def kilojoules(self, positions, gradient):
        return 5e3 * positions.square().sum((-2, -1)), 1e4 * positions


def spread(kind):
    """Mean square of positions and velocities of each rung over their equilibrium values, with little friction."""
    heats = torch.tensor([1.0, 1.6, 2.6], dtype=torch.float64)
    kernel = kind(Langevin(Springs(), torch.tensor([10.0]), timestep=0.01, friction=0.1, steps=7), heats)
    rng = seeded(3)
    start = kernel._heated(900).init(
        State.at(0.016 * torch.randn(2700, 1, 3, generator=rng, dtype=torch.float64), 3, rng)
    )
    *_, (state, _) = run(kernel, kernel.of(start), 60, rng)
    kT = 310.0 * dynamics.units.BOLTZMANN * heats
    x = state.replicas.positions.view(900, 3, 3).square().mean((0, 2)) * 1e4 / kT
    v = state.replicas.velocities.view(900, 3, 3).square().mean((0, 2)) * 10.0 / kT
    return torch.cat([x, v])


def test_velocities_follow_the_heat_of_their_rung():
    error = math.sqrt(2 / 2700)
    assert (spread(Tempering) - 1).abs().max() < 4.5 * error
    wrong = mutated("_swapped", "heats / heats[source]", "heats[source] / heats")
    assert (spread(wrong) - 1).abs().max() > 8 * error


def test_rungs_are_spaced_for_the_acceptance_asked_for():
    """40 harmonic freedoms: energies of every heat can be drawn."""
    pilot = torch.logspace(0, 1, 9, dtype=torch.float64)
    rng = seeded(4)

    def energies(heats, count=4000):
        gauss = torch.randn(count, len(heats), 40, generator=rng, dtype=torch.float64)
        return 0.5 * gauss.square().sum(-1) * heats

    for wanted in (0.2, 0.4):
        heats = spaced(pilot, -energies(pilot).mean(0), wanted)
        assert (heats[0], heats[-1]) == (1.0, 10.0)
        tempering = Tempering(Walk(), heats)
        accepted = tempering._accepted(-energies(heats), 0, rng) | tempering._accepted(-energies(heats), 1, rng)
        assert accepted.double().mean(0).numpy() == pytest.approx(wanted, abs=0.06)
    assert spaced(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -1.0])).tolist() == [1.0, 3.0]


def test_the_ladder_is_adapted_and_then_frozen():
    rng = seeded(5)
    pilot = Tempering(Walk(), torch.tensor([1.0, 1.1, 1.2, 8.0], dtype=torch.float64))
    state = pilot.init(State.at(drawn(HEATS[:1], 300, rng)))
    tempering, state = adapted(pilot, state, 60, rng, 0.5)
    assert len(tempering.heats) != len(pilot.heats)
    assert state.tried.sum() == 0
    assert len(state.replicas.tempered) == 300 * len(tempering.heats)
    *_, (later, _) = run(tempering, state, 40, rng)
    assert ((later.acceptance > 0.3) & (later.acceptance < 0.8)).all()


def polar_laws(kind=Torsions, local=True):
    """K-S of torsions and stiff coordinates in the coldest rung, of torsion moves with trajectories of the target."""
    rng = seeded(6)
    hmc = Hamiltonian(polar.Known(), torch.ones(2), 0.15, 3) if local else None
    tempering = Tempering(polar.kernel(kind), torch.tensor([1.0, 1.8, 3.5], dtype=torch.float64), 2, hmc)
    state = tempering.init(State.at(polar.Polar().inverse(*polar.drawn(3000, rng))[0]))
    *_, (state, _) = run(tempering, state, 30, rng)
    assert float(state.acceptance.min()) > 0.1
    return polar.p_values(state.cold.torsions, state.cold.noise + state.cold.mean)


def test_torsion_moves_on_a_ladder_sample_their_target():
    assert min(polar_laws()) > 1e-3


def test_what_a_heat_divides_is_all_but_the_noise(monkeypatch):
    monkeypatch.setattr(polar.module.TorsionState, "tempered", property(lambda s: s.log_density), raising=True)
    assert min(polar_laws(local=False)) < 1e-6


@pytest.mark.parametrize("heats", [[1.0, 1.0], [2.0, 1.0], [-1.0, 1.0]])
def test_heats_that_do_not_ascend_are_refused(heats):
    with pytest.raises(ValueError, match="expected ascending positive heats"):
        Tempering(Walk(), torch.tensor(heats))


def test_replicas_that_fill_no_ladder_are_refused():
    with pytest.raises(ValueError, match="expected a multiple of 4 replicas, one for each rung, got 3"):
        Tempering(Walk(), HEATS).of(Walk().init(State.at(torch.zeros(3, 1, 3))))
