"""Independence Metropolis-Hastings with a queue: exact, nothing wasted, resumable in the middle."""

from dataclasses import replace

import pytest
import torch

from timewarp.kernel import run
from timewarp.mcmc import Independence, Metropolis, accept
from timewarp.state import State

from .toys import GAUSS, WELLS, Coupled, Fixed, ergodicity, invariance, ks, seeded


@pytest.mark.parametrize("target", [GAUSS, WELLS], ids=["gauss", "wells"])
@pytest.mark.parametrize(("width", "channels"), [(1, 3), (7, 3), (7, 0), (64, 1)])
def test_leaves_the_target_invariant(target, width, channels):
    assert invariance(Independence(target, Fixed(channels=channels), width), target) > 0.01


@pytest.mark.parametrize("channels", [0, 3])
def test_comes_to_the_target_from_far_off(channels):
    assert ergodicity(Independence(WELLS, Fixed(channels=channels), 16), WELLS, 1000) > 0.01


@pytest.mark.parametrize("wrong", [replace(WELLS, tilt=0.0), replace(WELLS, sigma=1.3)])
def test_fails_on_the_wrong_target(wrong):
    assert invariance(Independence(WELLS, Fixed(), 7), wrong, 30) < 1e-6
    assert ergodicity(Independence(WELLS, Fixed(), 16), wrong, 1000) < 1e-3


def test_fails_with_the_log_ratio_flipped(monkeypatch):
    right = accept.metropolis
    monkeypatch.setattr(accept, "metropolis", lambda u, v, log_ratio, rng: right(u, v, -log_ratio, rng))
    assert invariance(Independence(WELLS, Fixed(), 7), WELLS) < 1e-6


def test_fails_without_the_velocities_own_density(monkeypatch):
    monkeypatch.setattr(accept, "velocity_log_prob", lambda v: v.new_zeros(v.shape[:-2]))
    assert invariance(Independence(WELLS, Fixed(), 7), WELLS) < 1e-6


def test_fails_with_a_wrong_density(monkeypatch):
    right = Fixed.log_prob
    monkeypatch.setattr(Fixed, "log_prob", lambda self, state: 0.6 * right(self, state))
    assert invariance(Independence(WELLS, Fixed(), 7), WELLS) < 1e-6


def test_agrees_with_metropolis_on_the_acceptance():
    rates = []
    for kernel in (Independence(WELLS, Fixed(channels=0), 8), Metropolis(WELLS, Fixed(channels=0), 1)):
        rng = seeded(0)
        chain = kernel.init(State.at(WELLS.draw(4000, rng)))
        rates.append(torch.stack([info["accepted"] for _, info in run(kernel, chain, 10, rng)]).double().mean().item())
    assert rates[0] == pytest.approx(rates[1], abs=0.01)


def test_every_proposal_is_tested_once_and_evaluated_once():
    proposal = Fixed()
    kernel = Independence(WELLS, proposal, 5)
    queue = kernel.init(State.at(WELLS.draw(3, seeded(0)), 3, seeded(1)))
    infos = [info for _, info in run(kernel, queue, 20, seeded(2))]
    assert [info["evaluations"] for info in infos] == [15, 0, 0, 0, 0] * 4
    assert all(info["tested"].tolist() == [1, 1, 1] for info in infos)
    # one for the initial density; then, a filling, one for the new velocities and one for the proposals
    assert proposal.calls == 1 + 4 * 2


def test_the_energy_and_density_are_those_of_the_present():
    proposal = Fixed()
    kernel = Independence(WELLS, proposal, 4)
    first = kernel.init(State.at(WELLS.draw(50, seeded(0)), 3, seeded(1)))
    for queue, info in run(kernel, first, 11, seeded(2)):
        torch.testing.assert_close(queue.energy, WELLS(queue.state.positions))
        torch.testing.assert_close(info["energy"], queue.energy)
        log_prob = proposal(queue.state.positions).log_prob(queue.state)
        torch.testing.assert_close(queue.log_net, log_prob - accept.velocity_log_prob(queue.state.velocities))


def test_resumes_exactly_from_tensors_in_the_middle_of_the_queue():
    kernel = Independence(WELLS, Fixed(), 6)
    rng = seeded(2)
    steps = run(kernel, kernel.init(State.at(WELLS.draw(9, seeded(0)), 3, seeded(1))), 30, rng)
    for _ in range(9):
        queue, _ = next(steps)
    saved, rng_state = {k: v.clone() for k, v in queue.tensors().items()}, rng.get_state()
    assert all(isinstance(v, torch.Tensor) for v in saved.values())
    straight = [queue for queue, _ in steps][-1]
    again = [queue for queue, _ in run(kernel, kernel.restore(saved), 21, seeded(0).set_state(rng_state))][-1]
    assert all(torch.equal(v, again.tensors()[k]) for k, v in straight.tensors().items())
    # an initial state, whose queue is empty, can be saved too
    first = kernel.init(State.at(WELLS.draw(2, seeded(0)), 3, seeded(1)))
    assert kernel.restore(first.tensors()).next == 6


def test_same_in_same_out_and_nothing_is_changed_in_place():
    kernel = Independence(WELLS, Fixed(), 3)
    queue = kernel.init(State.at(WELLS.draw(7, seeded(0)), 3, seeded(1)))
    for _ in range(5):
        before = {k: v.clone() for k, v in queue.tensors().items()}
        one, two = (kernel.step(queue, seeded(2))[0].tensors() for _ in range(2))
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(queue.tensors()[name], before[name], rtol=0, atol=0, equal_nan=True)
        queue, _ = kernel.step(queue, seeded(2))


def test_chains_do_not_see_each_other():
    kernel = Independence(WELLS, Fixed(), 4)
    x = WELLS.draw(5, seeded(0))
    ends = []
    for start in (x, x.index_fill(0, torch.tensor([2]), 2.5)):
        queue = kernel.init(State.at(start, 3, seeded(1)))
        ends.append([q.state.positions for q, _ in run(kernel, queue, 6, seeded(2))])
    a, b = (torch.stack(e) for e in ends)
    same = (a == b).flatten(2).all(-1).all(0)
    assert same.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_entered(bad):
    def energy(x):
        return torch.where(x[..., 0, 0] > 0.5, bad, GAUSS(x))

    kernel, rng = Independence(energy, Fixed(), 8), seeded(4)
    start = GAUSS.draw(9000, rng)
    start = start[start[:, 0, 0] < 0.5][:4000]
    for queue, _ in run(kernel, kernel.init(State.at(start, 3, rng)), 15, rng):
        last = queue.state.positions[:, 0, 0]
    assert (last <= 0.5).all()
    assert ks(last, lambda x: (GAUSS.cdf(x) / GAUSS.cdf(0.5)).clip(0, 1), 4000) > 0.01


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"expected a memoryless proposal, .*; use Metropolis"):
        Independence(GAUSS, Coupled(), 4)
    with pytest.raises(ValueError, match="expected a width of at least 1 proposal, got 0"):
        Independence(GAUSS, Fixed(), 0)
    with pytest.raises(ValueError, match=r"the proposal's log_prob of the initial state, .* got -inf in chain 0"):
        Independence(lambda x: x.sum((-2, -1)) * 0, Fixed(), 2).init(State.at(torch.full((1, 1, 3), 1e30)))
