"""The training loop: what a step does, when it ends, and that a resumed run is the same run."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from timewarp.training.fit import Fit, FitConfig, fit

QUICK = FitConfig(learning_rate=1e-2, warm_up=2, report=4, ema=5.0)


def loss(model, batch, rng):
    noisy = batch + 0.01 * torch.randn(batch.shape, generator=rng)
    value = (model(noisy) - batch.sum(-1, keepdim=True)).square().mean()
    return value, {"size": float(batch.abs().mean())}


def draw(step, rng):
    return torch.randn(6, 3, generator=rng)


def new(config=QUICK, loss=loss, seed=0):
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    return Fit(model, loss, config, seed)


def run(state, steps, **options):
    told = []
    fit(state, draw, lambda *row: told.append(row), lambda s: None, steps=steps, **options)
    return told


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


def test_a_resumed_run_is_the_same_run_bit_for_bit():
    whole = new()
    run(whole, 10)
    first = new()
    run(first, 5)
    second = new(seed=9)
    second.restore(first.tensors())
    run(second, 10)
    assert second.step == 10
    assert same(whole.tensors(), second.tensors())
    third = new()
    run(third, 9)
    assert not same(whole.tensors(), third.tensors())


def test_training_lowers_the_loss():
    told = run(new(FitConfig(learning_rate=2e-2, warm_up=5, report=100)), 400)
    assert told[-1][1]["loss"] < 0.2 * told[0][1]["loss"]


def test_what_is_told_is_the_mean_since_it_was_last_told():
    values = []

    def counted(model, batch, rng):
        values.append(float(len(values)))
        return model(batch).sum() * 0 + values[-1], {"seen": values[-1]}

    told = run(new(loss=counted), 10)
    assert [(step, row["seen"], row["loss"]) for step, row in told] == [(4, 1.5, 1.5), (8, 5.5, 5.5), (10, 8.5, 8.5)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_counted(bad):
    def sometimes(model, batch, rng):
        value, told = loss(model, batch, rng)
        return value * (bad if state.step == 1 else 1.0), told

    state = new(loss=sometimes)
    before = []
    for step in range(3):
        before.append([p.clone() for p in state.model.parameters()])
        state.advance(draw(step, state.rng))
    before.append(list(state.model.parameters()))
    assert (state.step, state.skipped) == (3, 1)
    stayed = [all(map(torch.equal, a, b)) for a, b in pairwise(before)]
    assert stayed == [False, True, False]
    assert all(p.isfinite().all() for p in before[-1])


def test_the_weights_stay_where_they_are_in_a_skipped_step():
    def never(model, batch, rng):
        return model(batch).sum() * math.nan, {}

    state = new(loss=never)
    before = {k: v.clone() for k, v in state.model.state_dict().items()}
    state.advance(draw(0, state.rng))
    assert all(torch.equal(before[k], v) for k, v in state.model.state_dict().items())
    assert all(torch.equal(before[k], v) for k, v in state.averaged.state_dict().items())


def test_the_gradient_is_clipped():
    def steep(model, batch, rng):
        return 1e6 * loss(model, batch, rng)[0], {}

    state = new(FitConfig(clip=0.5), loss=steep)
    told = state.advance(draw(0, state.rng))
    norm = torch.stack([p.grad.norm() for p in state.model.parameters()]).norm()
    assert told["norm"] > 1e3
    torch.testing.assert_close(norm, torch.tensor(0.5))


def test_the_averaged_weights_are_the_exponential_average():
    state = new(FitConfig(learning_rate=1e-2, warm_up=1, ema=4.0))
    expected = next(state.model.parameters()).detach().clone()
    for step in range(40):
        state.advance(draw(step, state.rng))
        decay = min(1 - 1 / 4.0, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * next(state.model.parameters()).detach()
    torch.testing.assert_close(next(state.averaged.parameters()), expected)
    assert not torch.allclose(expected, next(state.model.parameters()), atol=1e-4)


def test_the_learning_rate_rises_then_falls_where_asked():
    flat, falling = FitConfig(1.0, warm_up=10), FitConfig(1.0, warm_up=10, horizon=100)
    assert [flat.rate(s) for s in (0, 4, 9, 1000)] == [0.1, 0.5, 1.0, 1.0]
    assert falling.rate(50) == pytest.approx(0.525)
    assert falling.rate(100) == falling.rate(10**6) == pytest.approx(0.05)


def test_it_ends_when_asked_and_saves():
    saved = []
    state = new()
    fit(state, draw, lambda *_: None, lambda s: saved.append(s.step), stop=lambda: state.step >= 3)
    assert saved == [3]
    fit(state, draw, lambda *_: None, lambda s: saved.append(s.step), steps=7, save_every=0.0)
    assert saved == [3, 4, 5, 6, 7, 7]
    fit(state, draw, lambda *_: None, lambda s: saved.append(s.step), seconds=0.05)
    assert state.step > 7
    assert saved[-1] == state.step
