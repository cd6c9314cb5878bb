"""Several steps for one: exact where the kernel is, and counted as they are made."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from timewarp.kernel import run
from timewarp.mcmc import Cycle, Delayed, Hamiltonian, Independence, Metropolis, Propose, Repeat
from timewarp.state import State

from .test_propose import step_about
from .toys import GAUSS, WELLS, Coupled, Fixed, invariance, seeded


def repeated(target, times=4):
    return Repeat(Propose(target, step_about), times)


@pytest.mark.parametrize("target", [GAUSS, WELLS], ids=["gauss", "wells"])
def test_leaves_the_target_invariant(target):
    assert repeated(target).exact
    assert invariance(repeated(target), target, 31) > 0.01
    assert invariance(Repeat(Hamiltonian(target, torch.ones(1), 0.4, 3), 3), target, 30) > 0.01


@pytest.mark.parametrize("wrong", [replace(WELLS, tilt=0.0), replace(WELLS, sigma=1.3)])
def test_fails_on_the_wrong_target(wrong):
    assert invariance(repeated(WELLS), wrong, 40) < 1e-6


def test_one_step_is_as_many_of_the_kernel():
    kernel, start = Propose(WELLS, step_about), State.at(WELLS.draw(50, seeded(0)))
    plain = list(islice(run(kernel, kernel.init(start), 12, seeded(1)), 12))
    found = list(islice(run(repeated(WELLS), repeated(WELLS).init(start), 3, seeded(1)), 3))
    for k, (state, info) in enumerate(found):
        same = plain[4 * k : 4 * k + 4]
        assert torch.equal(state.state.positions, same[-1][0].state.positions)
        assert torch.equal(info["energy"], same[-1][1]["energy"])
        moved = torch.stack([i["accepted"] for _, i in same]).sum(0)
        assert torch.equal(info["moved"], moved)
        assert torch.equal(info["accepted"], moved > 0)
        assert info["made"].tolist() == [4] * 50
        assert info["tested"].tolist() == [1] * 50
        assert info["evaluations"] == sum(i["evaluations"] for _, i in same)


def test_the_last_word_of_another_energy_judges_the_whole_step():
    """A second test of each accepted step, by another energy; it fails where that judges the last move only."""
    first, last = replace(WELLS, sigma=1.15), WELLS
    parts = (Independence(first, Fixed(), 5), Repeat(Propose(first, step_about), 3))
    cycle = Cycle(parts, (1.0, 1.0), 4)
    assert invariance(Delayed(cycle, last), last, 40) > 0.01

    class Late(Repeat):
        def step(self, state, rng):
            state, info = super().step(state, rng)
            before, _ = self.kernel.step(state, rng)
            return state, info | {"refused": before}

    wrong = Cycle((parts[0], Late(Propose(first, step_about), 3)), (1.0, 1.0), 4)
    assert invariance(Delayed(wrong, last), last, 80) < 1e-3


def test_the_counts_of_a_mixture_are_of_moves():
    cycle = Cycle((Independence(WELLS, Fixed(), 5), repeated(WELLS)), (1.0, 1.0), 4)
    for parts, _ in run(cycle, cycle.init(State.at(WELLS.draw(7, seeded(0)))), 8, seeded(1)):  # noqa: B007
        pass
    assert parts.tested.tolist() == [4 * 7, 4 * 4 * 7]


@pytest.mark.parametrize(
    "given",
    [
        (Propose(WELLS, step_about), 0),
        (Metropolis(WELLS, Coupled(), 12), 2),
        (Hamiltonian(WELLS, torch.ones(1), 0.3, 1, persistence=0.8), 2),
    ],
    ids=["never", "many tests", "not reversible"],
)
def test_errors_say_what_is_expected(given):
    with pytest.raises(ValueError, match="expected at least 1 time, and a reversible kernel of one test a step, got"):
        Repeat(*given)
