"""Delayed acceptance: whatever the first stage believes the energy to be, the law is that of the last word."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from timewarp.kernel import run
from timewarp.mcmc import Annealed, Delayed, Hamiltonian, Independence, Metropolis, Mixture, Propose, accept, delayed
from timewarp.mcmc.torsions import Torsions
from timewarp.state import State

from . import test_torsions as polar
from .bent import BENT, Straight
from .test_exactness import KERNELS, TARGETS, joint, laws, seen
from .test_propose import step_about
from .toys import WELLS, Coupled, Fixed, invariance, seeded

LEVEL = 1e-3  # of each of 42 statistics; a break has to be seen at 1e-6


def crooked(energy):
    """An energy that is wrong by several kT, and has its minima elsewhere."""

    def wrong(x):
        return 0.6 * energy(x) + 0.9 * torch.sin(2 * x[..., 0, 0]) + 0.4 * x[..., 0, 1]

    return wrong


class Whole(Delayed):
    """For energies that know the chains by their places: all are evaluated."""

    def _known(self, energy, new, positions):
        return torch.where(new, self.energy(positions.double()), energy), int(new.sum())


def twofold(kernel):
    return lambda energy: Whole(KERNELS[kernel](crooked(energy)), energy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_target_is_left_invariant_whatever_the_first_stage_believes(kernel, target):
    make, law = twofold(kernel), TARGETS[target]
    distribution, moments = laws(Delayed(KERNELS[kernel](crooked(law)), law), law)
    assert distribution > LEVEL
    assert moments > LEVEL
    assert joint(make, law) > LEVEL


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_first_stage_alone_has_another_law(kernel):
    """So that the test above is one: with nothing asked of the second stage it fails."""
    assert invariance(KERNELS[kernel](crooked(WELLS)), WELLS, 30) < 1e-6


def shim(patch, metropolis):
    patch.setattr(delayed, "accept", SimpleNamespace(metropolis=metropolis, initial_energy=accept.initial_energy))


def flipped(patch):
    """The whole of ln alpha_2 has the other sign."""
    shim(patch, lambda u, v, ratio, rng: accept.metropolis(v, u, -ratio, rng))


def half_flipped(patch):
    """The first stage's share of it has."""
    shim(patch, lambda u, v, ratio, rng: accept.metropolis(u, v, -ratio, rng))


def without_the_first(patch):
    """The second stage tests as if x' had not passed a test already."""
    shim(patch, lambda u, v, ratio, rng: accept.metropolis(u, v, 0 * ratio, rng))


def untested(patch):
    """The second stage lets everything pass."""
    shim(patch, lambda u, v, ratio, rng: v.isfinite())


def unturned(patch):
    """Momenta go on as if the second test had been passed."""
    right = delayed.chosen

    def chosen(pick, new, old):
        momenta = {name: value for name, value in new.items() if "momenta" in name}
        return right(pick, new, old) | momenta

    patch.setattr(delayed, "chosen", chosen)


BREAKS = [
    *[(k, b) for k in KERNELS for b in (flipped, half_flipped, without_the_first, untested)],
    ("langevin", unturned),
]


@pytest.mark.parametrize(("kernel", "broken"), BREAKS, ids=[f"{k}-{b.__name__}" for k, b in BREAKS])
def test_a_break_is_seen(kernel, broken, monkeypatch):
    broken(monkeypatch)
    assert seen(twofold(kernel))


def annealed(steps=15, chains=6000):
    """p-value of paths that relax towards a wrong energy, tested again with the right one."""

    def wrong(x):
        return BENT(x) + 0.7 * torch.sin(2 * x[..., 0, 0])

    rng = seeded(0)
    made = Delayed(Annealed(wrong, Straight(wrong), 3, 5, 0.4 * math.pi), BENT)
    state = made.init(State.at(BENT.draw(chains, rng), 0))
    for state, _ in run(made, state, steps, rng):  # noqa: B020, B007
        pass
    return BENT.p_value(state.state.positions)


def test_annealed_paths_with_a_wrong_energy():
    assert annealed() > 0.01


@pytest.mark.parametrize("broken", [flipped, untested])
def test_a_break_of_annealed_paths_is_seen(broken, monkeypatch):
    broken(monkeypatch)
    assert annealed() < 1e-6


def turned(steps=20, chains=4000):
    """p-values of torsion moves in a mixture, whose stiff coordinates are half again too soft for the first stage."""
    right = polar.Known()

    def wrong(x):
        return 0.7 * right(x) + 0.5 * torch.sin(x[..., 0, 2])

    rng = seeded(0)
    walk = Torsions(polar.Polar(), polar.leaning, wrong)
    nudges = Propose(wrong, step_about)
    kernel = Delayed(Mixture((walk, nudges), (1.0, 1.0)), right)
    state = kernel.init(State.at(polar.Polar().inverse(*polar.drawn(chains, rng))[0]))
    for state, _ in run(kernel, state, steps, rng):  # noqa: B020, B007
        pass
    torsions, stiff, _ = polar.Polar().forward(state.state.positions)
    p = polar.p_values(torsions, stiff)
    p.append(2 * stats.norm.sf(abs(float(stats.zscore(stiff.numpy().ravel()).mean()))))
    return min(1.0, len(p) * min(p))


def test_torsion_moves_with_a_wrong_energy():
    assert turned() > 0.01


@pytest.mark.parametrize("broken", [flipped, untested])
def test_a_break_of_torsion_moves_is_seen(broken, monkeypatch):
    broken(monkeypatch)
    assert turned(40, 8000) < 1e-6


def everything(energy, last=WELLS):
    parts = (
        Metropolis(energy, Coupled(), 1),
        Independence(energy, Fixed(), 5),
        Hamiltonian(energy, torch.ones(1), 0.4),
    )
    return Delayed(Mixture(parts, (1.0, 2.0, 1.0)), last)


def test_the_same_energy_twice_refuses_nothing():
    kernel = everything(WELLS)
    alone, rng = kernel.kernel, seeded(1)
    first = State.at(WELLS.draw(8, seeded(0)), 3, rng)
    plain, tested = alone.init(first), 0
    state = kernel.begun(plain)
    for _ in range(100):
        before = rng.get_state()
        state, info = kernel.step(state, rng)
        expected, said = alone.step(plain, torch.Generator().set_state(before))
        plain = state.inner
        assert torch.equal(state.state.positions, expected.state.positions)
        assert torch.equal(info["accepted"], said["accepted"])
        assert torch.equal(info["tested_again"], said["accepted"])
        assert info["difference"][info["tested_again"]].abs().sum() == 0
        assert info["difference"][~info["tested_again"]].isnan().all()
        tested += int(info["tested_again"].sum())
    assert tested > 100


def test_the_info_is_what_happened():
    calls = []

    def counted(x):
        assert x.dtype == torch.float64
        calls.append(len(x))
        return WELLS(x)

    kernel, rng = everything(crooked(WELLS), counted), seeded(1)
    state = kernel.init(State.at(WELLS.draw(8, seeded(0)).float(), 3, rng))
    calls.clear()
    for _ in range(200):
        old = state.state.positions
        state, info = kernel.step(state, rng)
        spent = sum(calls)
        calls.clear()
        assert spent == info["tested_again"].sum()
        assert info["evaluations"] >= spent
        assert not (info["accepted"] & ~info["tested_again"]).any()
        changed = (state.state.positions != old).flatten(1).any(1)
        assert torch.equal(changed, info["accepted"])
        torch.testing.assert_close(state.energy, WELLS(state.state.positions.double()))
        torch.testing.assert_close(info["energy"], state.energy)
        torch.testing.assert_close(
            state.inner.energy, crooked(WELLS)(state.state.positions.double()), rtol=1e-5, atol=1e-5
        )
        assert state.state.positions.dtype == torch.float32


def test_what_has_no_energy_in_the_last_word_is_never_entered():
    def walled(x):
        return torch.where(x[..., 0, 0] > 0, torch.inf, WELLS(x))

    kernel, rng = everything(crooked(WELLS), walled), seeded(1)
    state = kernel.init(State.at(-WELLS.draw(8, seeded(0)).abs(), 3, rng))
    refused = 0
    for state, info in run(kernel, state, 200, rng):  # noqa: B020
        assert (state.state.positions[:, 0, 0] <= 0).all()
        assert state.energy.isfinite().all()
        refused += int((info["tested_again"] & ~info["accepted"]).sum())
    assert refused > 50


def test_pure_and_resumable_and_chains_do_not_see_each_other():
    kernel, x, ends = everything(crooked(WELLS)), WELLS.draw(5, seeded(0)), []
    for start in (x, x, x.index_fill(0, torch.tensor([3]), 1.5)):
        rng = seeded(4)
        steps = run(kernel, kernel.init(State.at(start, 3, seeded(1))), 60, rng)
        for _ in range(31):
            state, _ = next(steps)
        saved, rng_state = {k: v.clone() for k, v in state.tensors().items()}, rng.get_state()
        ends.append([s for s, _ in steps][-1].tensors())
        again = [s for s, _ in run(kernel, kernel.restore(saved), 29, seeded(0).set_state(rng_state))][-1].tensors()
        assert again.keys() == ends[-1].keys()
        for name, value in ends[-1].items():
            torch.testing.assert_close(value, again[name], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(ends[0]["last"], ends[1]["last"])
    others = torch.tensor([0, 1, 2, 4])
    assert torch.equal(ends[0]["last"][others], ends[2]["last"][others])


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="expected a first stage of one test a step, got up to 3; set its width to 1"):
        Delayed(Metropolis(WELLS, Coupled(), 3), WELLS)
    with pytest.raises(ValueError, match="an initial energy U/kT, finite for every chain"):
        everything(WELLS, lambda x: WELLS(x) + torch.inf).init(State.at(WELLS.draw(2, seeded(0)), 3, seeded(1)))


def test_it_is_as_exact_as_its_first_stage():
    assert everything(WELLS).exact
