"""The weights of a mixture follow what each kernel does for the slowest observable, for what it costs."""

import pytest
import torch

from timewarp.mcmc.pilot import FIRST, REST, Pilot

from .toys import seeded


def pilot(moves, costs, steps=400, chains=20, seed=0):
    """`moves[k]` is the probability with which kernel k draws each observable anew."""
    rng = seeded(seed)
    made, x = Pilot(len(moves)), torch.randn(chains, len(moves[0]), generator=rng)
    for step in range(steps):
        k = step % len(moves)
        fresh = torch.rand(x.shape, generator=rng) < torch.tensor(moves[k])
        new = torch.where(fresh, torch.randn(x.shape, generator=rng), x)
        made.add(k, x, new, costs[k])
        x = new
    return made


def test_the_jump_of_a_kernel_is_the_share_that_it_draws_anew():
    found = pilot([(0.4, 0.8), (0.1, 0.05)], (1.0, 2.0), steps=2000).rates
    assert found[0] == pytest.approx(0.4, rel=0.1)
    assert found[1] == pytest.approx(0.05 / 2, rel=0.2)


def test_a_kernel_that_is_worth_its_cost_is_picked_most():
    good, poor = (0.5, 0.5), (0.05, 0.05)
    assert pilot([good, poor, poor], (1.0, 1.0, 1.0)).weights()[0] == max(FIRST)
    most = 1 - min(FIRST)
    assert pilot([poor, good, poor], (1.0, 1.0, 1.0)).weights()[:2] == pytest.approx((1 - most, most * max(REST)))
    # twenty times as dear, it is not
    assert pilot([good, poor], (20.0, 1.0)).weights() == pytest.approx((1 - most, most))


def test_kernels_that_move_different_things_share():
    weights = pilot([(0.6, 0.0), (0.0, 0.6)], (1.0, 1.0)).weights()
    assert weights == (0.5, 0.5)


def test_what_never_changes_says_nothing():
    made = Pilot(2)
    for step in range(40):
        x = torch.randn(20, 1, generator=seeded(step))
        new = torch.randn(20, 1, generator=seeded(100 + step)) if step % 2 else x
        made.add(step % 2, torch.cat([x, 0 * x + 3.0], 1), torch.cat([new, 0 * x + 3.0], 1), 1.0)
    assert made.weights() == (min(FIRST), 1 - min(FIRST))


def test_a_short_pilot_is_not_believed():
    assert pilot([(0.5,), (0.5,)], (1.0, 1.0), steps=9).weights() is None
    assert pilot([(0.5,), (0.5,)], (1.0, 1.0), steps=10).weights() is not None
    with pytest.raises(ValueError, match="two or three kernels, got 4"):
        pilot([(0.5,)] * 4, (1.0,) * 4).weights()
