"""Any move: the sign of its log_ratio, and its velocities."""

import pytest
import torch

from timewarp.kernel import Move
from timewarp.mcmc import Propose
from timewarp.state import State

from .toys import GAUSS, WELLS, Coupled, ergodicity, invariance, seeded


def step_about(state, rng):
    step = torch.randn(state.positions.shape, generator=rng, dtype=state.positions.dtype)
    x = state.positions + step
    return Move(State(x, state.velocities), x.new_zeros(len(x)))


def stretched(sign):
    """x' = e^s x with s ~ N(0, 0.6^2): a volume of e^(3 s) for one atom, and a little walk to make it ergodic."""

    def move(state, rng):
        s = 0.6 * torch.randn(len(state.positions), generator=rng, dtype=state.positions.dtype)
        return Move(State(state.positions * s.exp()[:, None, None], state.velocities), sign * 3 * s)

    return move


def by_flow(state, rng):
    proposal = Coupled()
    new, forward = proposal(state.positions).sample(1, rng)
    return Move(new[0], proposal(new[0].positions).log_prob(state) - forward[0])


@pytest.mark.parametrize("target", [GAUSS, WELLS], ids=["gauss", "wells"])
@pytest.mark.parametrize(("move", "channels"), [(step_about, 0), (stretched(1), 0), (by_flow, 3)])
def test_leaves_the_target_invariant(target, move, channels):
    assert invariance(Propose(target, move, channels), target) > 0.01


def test_comes_to_the_target_from_far_off():
    assert ergodicity(Propose(WELLS, step_about), WELLS, 1500) > 0.01


@pytest.mark.parametrize("sign", [-1, 0])
def test_fails_with_the_sign_flipped_or_the_jacobian_forgotten(sign):
    assert invariance(Propose(WELLS, stretched(sign)), WELLS) < 1e-6


def test_fails_without_the_velocities_own_density():
    def forgetful(state, rng):
        new, log_ratio = by_flow(state, rng)
        return Move(State(new.positions, state.velocities), log_ratio)

    assert invariance(Propose(WELLS, forgetful, 3), WELLS) < 1e-6


def test_chains_and_purity():
    kernel = Propose(WELLS, by_flow, 3)
    x = WELLS.draw(4, seeded(0))
    starts = (x, x, x.index_fill(0, torch.tensor([1]), 3.0))
    ends = [kernel.step(kernel.init(State.at(s)), seeded(7))[0].tensors() for s in starts]
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    same = (ends[0]["positions"] == ends[2]["positions"]).flatten(1).all(1)
    assert same.tolist() == [True, False, True, True]
    assert torch.equal(kernel.restore(ends[0]).energy, ends[0]["energy"])
