"""Laws of the Langevin dynamics: harmonic oscillators to their analytic variances, each rung to its own heat."""

import inspect
import math
import textwrap
from dataclasses import dataclass, replace

import pytest
import torch

from timewarp import units
from timewarp.kernel import Kernel, run
from timewarp.mcmc import dynamics as module
from timewarp.mcmc.dynamics import Langevin, repartitioned
from timewarp.mcmc.ess import bulk_ess
from timewarp.md.export import export
from timewarp.md.system import prepare_sequence
from timewarp.state import State

from .toys import seeded

MASSES = torch.tensor([1.0, 12.0, 16.0])
FASTEST = 300.0  # rad/ps, of the first atom
TEMPERATURE = 350.0


@dataclass(frozen=True)
class Springs:
    """Each atom on a spring of its own: the first has the angular frequency FASTEST, the others a third and a ninth."""

    stiffness: torch.Tensor = MASSES * (FASTEST / torch.tensor([1.0, 3.0, 9.0])) ** 2

    def kilojoules(self, positions, gradient):
        pull = self.stiffness.to(positions)[:, None] * positions
        return 0.5 * (pull * positions).sum((-2, -1)), pull


def springs(kind=Langevin, **how):
    asked = {"temperature": TEMPERATURE, "timestep": 0.5 / FASTEST, "friction": 80.0, "steps": 20}
    return kind(Springs(), MASSES, **asked | how)


def mutated(text, instead):
    """The kernel with one formula of its step changed."""
    source = textwrap.dedent(inspect.getsource(Langevin.step))
    assert source.count(text) >= 1, "the formula is written otherwise now: change the test with it"
    scope = dict(vars(module))
    exec("from __future__ import annotations\n" + source.replace(text, instead, 1), scope)
    return type("Mutated", (Langevin,), {"step": scope["step"]})


def series(kernel, chains=400, steps=30, drop=5, seed=0):
    """x^2 and v^2 of each coordinate over their analytic means, [steps, chains, atoms, 3]."""
    rng = seeded(seed)
    state = kernel.init(State.at(torch.zeros(chains, 3, 3, dtype=torch.float64), 3, rng))
    states = [state for state, _ in run(kernel, state, steps, rng)][drop:]
    kT = units.kT(TEMPERATURE) * torch.as_tensor(kernel.heat, dtype=torch.float64).reshape(-1, 1, 1)
    x = torch.stack([s.positions for s in states]).square() * Springs().stiffness[:, None] / kT
    v = torch.stack([s.velocities for s in states]).square() * MASSES[:, None] / kT
    return x, v


def deviations(ratios):
    """How far the mean of each atom is from 1, in standard errors by the effective sample size."""
    found = []
    for atom in range(ratios.shape[2]):
        draws = ratios[:, :, atom].flatten(1).T.numpy()  # [chains * 3, steps]
        error = draws.std() / math.sqrt(min(bulk_ess(draws), draws.size))
        found.append(abs(draws.mean() - 1) / error)
    return found


def test_it_is_a_kernel_that_says_it_is_not_exact():
    assert isinstance(springs(), Kernel)
    assert springs().exact is False


@pytest.mark.parametrize("share", [0.1, 0.7, 1.6])
def test_oscillators_have_their_analytic_variance_at_any_time_step(share):
    """The scheme has no error for them, short of 2 / FASTEST where it is not stable."""
    x, v = series(springs(timestep=share / FASTEST))
    assert max(deviations(x)) < 4
    assert max(deviations(v)) < 4


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("x.add_(v, alpha=0.5 * h)", "pass"),  # a half drift is missing
        ("v.addcmul_(g, kick)", "v.addcmul_(g, 0.5 * kick)"),  # a half kick is missing
        ("math.sqrt(1 - c * c)", "math.sqrt(1 - c)"),  # the noise does not belong to the friction
        ("v.mul_(c)", "v.mul_(c * c)"),
        ("* thermal\n", "* thermal**2\n"),
        ("kick = -h", "kick = -1.2 * h"),
    ],
)
def test_a_broken_formula_shows_in_the_variances(text, instead):
    x, v = series(springs(mutated(text, instead), timestep=0.7 / FASTEST))
    assert max(deviations(x) + deviations(v)) > 8


def test_each_replica_has_its_own_heat():
    """Equipartition at every heat of one batch."""
    heats = torch.tensor([1.0, 1.7, 2.9], dtype=torch.float64)
    x, v = series(springs(heat=heats.repeat(150)), chains=450)
    for rung in range(3):
        assert max(deviations(x[:, rung::3]) + deviations(v[:, rung::3])) < 4
    colder = series(springs(heat=heats.repeat(150)), chains=450)[1] * 1.1
    assert min(min(deviations(colder[:, rung::3])) for rung in range(3)) > 4


def test_it_repeats_itself_and_goes_on_from_what_was_saved():
    kernel = springs(steps=3)
    rng = seeded(1)
    state = kernel.init(State.at(torch.zeros(2, 3, 3), 3, rng))
    saved = rng.get_state()
    before = {k: v.clone() for k, v in state.tensors().items()}
    first, _ = kernel.step(state, rng)
    assert all(torch.equal(v, state.tensors()[k]) for k, v in before.items())  # nothing is changed in place
    again, _ = kernel.step(kernel.restore(state.tensors()), seeded(0).set_state(saved))
    assert all(torch.equal(a, b) for a, b in zip(first.tensors().values(), again.tensors().values(), strict=True))


@dataclass(frozen=True)
class Cliff(Springs):
    """Replicas that move beyond the cliff fail."""

    cliff: float = 0.01

    def kilojoules(self, positions, gradient):
        energy, slope = super().kilojoules(positions, gradient)
        return torch.where(positions.abs().amax((-2, -1)) > self.cliff, torch.inf, energy), slope


def test_a_replica_that_fails_goes_back_alone():
    kernel = replace(springs(steps=1), potential=Cliff())
    rng = seeded(2)
    state = kernel.init(State.at(torch.zeros(300, 3, 3), 3, rng))
    lost = 0
    for new, info in run(kernel, state, 20, rng):
        failed = ~info["accepted"]
        lost += int(failed.sum())
        assert torch.equal(new.positions[failed], state.positions[failed])
        assert not (new.positions[~failed] == state.positions[~failed]).all((-2, -1)).any()
        assert new.energy.isfinite().all()
        state = new
    assert 20 < lost < 5000


def test_padding_does_not_move_nor_count():
    masses = torch.cat([MASSES, torch.tensor([math.inf])])
    padded = Springs(torch.cat([Springs().stiffness, torch.zeros(1)]))
    kernel = Langevin(padded, masses.expand(5, -1), TEMPERATURE, 0.001, 5.0, 4, centred=True)
    rng = seeded(3)
    state = kernel.init(State.at(torch.zeros(5, 4, 3), 3, rng))
    state, _ = kernel.step(state, rng)
    assert (state.positions[:, 3] == 0).all()
    assert (state.velocities[:, 3] == 0).all()
    assert (state.positions[:, :3] != 0).all()
    assert state.positions.mean(1).abs().max() < 1e-6
    assert kernel.freedoms().tolist() == [9] * 5


def test_hydrogens_take_their_mass_from_what_they_are_bound_to():
    prepared = prepare_sequence("ACE-CYS-NME")
    molecule = export(prepared.topology, prepared.system, prepared.positions)
    masses = repartitioned(molecule)
    assert masses.sum() == pytest.approx(float(molecule.masses.sum()), abs=1e-3)
    light = molecule.elements == 1
    assert (masses[light] == 3.0).all()
    names = [atom.name for atom in prepared.topology.atoms()]
    methyl, sulfur = masses[names.index("CH3")].item(), masses[names.index("SG")].item()
    assert methyl == pytest.approx(12.011 - 3 * (3 - 1.008), abs=0.01)
    assert sulfur == pytest.approx(32.06 - (3 - 1.008), abs=0.01)
    with pytest.raises(ValueError, match="expected masses that can spare 6 amu a hydrogen"):
        repartitioned(molecule, 6.0)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="expected positive masses in amu"):
        Langevin(Springs(), torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="expected timestep > 0 ps"):
        springs(timestep=0.0)
    with pytest.raises(ValueError, match="finite for every chain"):
        springs().init(State.at(torch.full((1, 3, 3), math.nan)))
