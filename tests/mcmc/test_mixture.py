"""Mixtures: exact when their parts are and make one test each; the energy is handed on."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp.kernel import Move, run
from timewarp.mcmc import Cycle, Explore, Hamiltonian, Independence, Metropolis, Mixture, Propose
from timewarp.state import State

from .test_propose import step_about
from .toys import GAUSS, WELLS, Coupled, Discrete, Fixed, ergodicity, invariance, seeded, series


@pytest.fixture(params=[Mixture, partial(Cycle, length=4)], ids=["drawn", "in turn"])
def kind(request):
    return request.param


def everything(target, kind=Mixture):
    kernels = (
        Metropolis(target, Coupled(), 1),
        Independence(target, Fixed(), 5),
        Hamiltonian(target, torch.ones(1), 0.4, 3),
        Hamiltonian(target, torch.ones(1), 0.3, 1, persistence=0.8),
        Propose(target, step_about),
    )
    return kind(kernels, (1.0, 3.0, 1.0, 2.0, 0.5))


@pytest.mark.parametrize("target", [GAUSS, WELLS], ids=["gauss", "wells"])
def test_leaves_the_target_invariant(target, kind):
    assert everything(target, kind).exact
    assert invariance(everything(target, kind), target, 40) > 0.01


def test_comes_to_the_target_from_far_off(kind):
    assert ergodicity(everything(WELLS, kind), WELLS, 1000) > 0.01


@pytest.mark.parametrize("wrong", [replace(WELLS, tilt=0.0), replace(WELLS, sigma=1.3)])
def test_fails_on_the_wrong_target(wrong, kind):
    assert invariance(everything(WELLS, kind), wrong, 40) < 1e-6


def test_fails_when_what_a_kernel_remembers_is_not_renewed(kind):
    class Stale(Independence):
        def moved(self, queue, positions, energy):
            return replace(queue, present=queue.present.moved(positions, energy)), 0

    def mixed(first):
        return kind((first(WELLS, Fixed(0.6, 0.8), 5), Propose(WELLS, step_about)), (1.0, 1.0))

    assert invariance(mixed(Independence), WELLS, 40) > 0.01
    assert invariance(mixed(Stale), WELLS, 80) < 1e-6


def test_handing_over_after_an_acceptance_is_refused_because_it_is_biased():
    wide = Metropolis(WELLS, Coupled(), 12)
    with pytest.raises(ValueError, match=r"one test a step, got Metropolis with up to 12: .* set its width to 1"):
        Mixture((wide, Propose(WELLS, step_about)), (1.0, 1.0))
    assert mixed_with_staying(1) > 0.01
    assert mixed_with_staying(12) < 1e-6


def mixed_with_staying(width):
    """Chi-squared p-value of the law after 30 tests, mixed with a kernel that moves nothing."""
    toy, rng, chains = Discrete(), seeded(5), 20_000
    stay = Propose(toy.energy, lambda state, rng: Move(state, state.positions.new_zeros(chains)))
    kernel = Alternating(Metropolis(toy.energy, toy, width), stay)
    places = torch.multinomial(toy.pi, chains, replacement=True, generator=rng)
    start = State.at(places.double()[:, None, None].expand(chains, 1, 3))
    x = series(kernel, kernel.init(start), 30, rng)[-1, :, 0, 0].int()
    return stats.chisquare(np.bincount(x, minlength=3), toy.pi.numpy() * chains).pvalue


class Alternating:
    """The mixture with a choice for each chain of its own: both kernels step, and each chain takes one of them."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def init(self, state):
        return self.first.init(state)

    def step(self, chain, rng):
        pick = torch.rand(len(chain.energy), generator=rng) < 0.5
        a, info_a = self.first.step(chain, rng)
        b, info_b = self.second.step(chain, rng)
        state = State(torch.where(pick[:, None, None], a.state.positions, b.state.positions), chain.state.velocities)
        info = {k: torch.where(pick, info_a[k], info_b[k]) for k in ("tested", "accepted")}
        return replace(chain, state=state, energy=torch.where(pick, a.energy, b.energy)), info


def test_the_energy_of_the_present_is_handed_on():
    calls = []

    def counted(x):
        calls.append(x.shape[:-2].numel())
        return WELLS(x)

    mixture = everything(counted)
    first = mixture.init(State.at(WELLS.draw(6, seeded(0)), 3, seeded(1)))
    for parts, _ in run(mixture, first, 60, seeded(2)):
        torch.testing.assert_close(parts.energy, WELLS(parts.state.positions))
    calls.clear()
    spent = sum(info["evaluations"] for _, info in run(mixture, first, 100, seeded(2)))
    assert sum(calls) == spent
    # kernels without a gradient evaluate nothing but their proposals
    cheap = Mixture((Metropolis(counted, Coupled(), 1), Propose(counted, step_about)), (1.0, 1.0))
    start = cheap.init(State.at(WELLS.draw(6, seeded(0)), 3, seeded(1)))
    calls.clear()
    assert all(info["evaluations"] == 6 for _, info in run(cheap, start, 30, seeded(3)))
    assert sum(calls) == 180


def test_the_statistics_are_a_kernels_own():
    mixture = everything(WELLS)
    first = mixture.init(State.at(WELLS.draw(6, seeded(0)), 3, seeded(1)))
    picked, accepted = Counter(), Counter()
    for parts, info in run(mixture, first, 600, seeded(2)):  # noqa: B007
        picked[info["kernel"]] += 1
        accepted[info["kernel"]] += info["accepted"].sum().item()
    assert parts.tested.tolist() == [6 * picked[i] for i in range(5)]
    assert parts.accepted.tolist() == [accepted[i] for i in range(5)]
    for i, weight in enumerate(mixture.weights):
        assert picked[i] / 600 == pytest.approx(weight / 7.5, abs=0.06)


def test_pure_independent_and_resumable():
    mixture = everything(WELLS)
    x = WELLS.draw(5, seeded(0))
    ends = []
    for start in (x, x, x.index_fill(0, torch.tensor([3]), 1.5)):
        rng = seeded(4)
        steps = run(mixture, mixture.init(State.at(start, 3, seeded(1))), 60, rng)
        for _ in range(31):
            parts, _ = next(steps)
        saved, rng_state = {k: v.clone() for k, v in parts.tensors().items()}, rng.get_state()
        ends.append([p for p, _ in steps][-1].tensors())
        again = [p for p, _ in run(mixture, mixture.restore(saved), 29, seeded(0).set_state(rng_state))][-1].tensors()
        for name, value in ends[-1].items():
            torch.testing.assert_close(value, again[name], rtol=0, atol=0, equal_nan=True)
    last = int(ends[0]["last"])
    assert torch.equal(ends[0][f"{last}.positions"], ends[1][f"{last}.positions"])
    same = (ends[0][f"{last}.positions"] == ends[2][f"{last}.positions"]).flatten(1).all(1)
    assert same.tolist() == [True, True, True, False, True]


def test_a_mixture_of_mixtures():
    inner = Mixture((Independence(WELLS, Fixed(), 5), Propose(WELLS, step_about)), (1.0, 1.0))
    outer = Mixture((inner, Hamiltonian(WELLS, torch.ones(1), 0.4, 3)), (1.0, 1.0))
    assert invariance(outer, WELLS, 30) > 0.01


def test_not_exact_when_a_part_is_not():
    assert not Mixture((Explore(WELLS, Coupled(), 10.0), Propose(WELLS, step_about)), (1.0, 1.0)).exact


def test_errors_say_what_to_do():
    kernel = Propose(WELLS, step_about)
    with pytest.raises(ValueError, match="expected as many kernels as weights, at least one, got 1 and 2"):
        Mixture((kernel,), (1.0, 2.0))
    with pytest.raises(ValueError, match=r"expected positive finite weights, got \(1.0, 0.0\); leave out"):
        Mixture((kernel, kernel), (1.0, 0.0))
