"""A budget of energy evaluations is spent and counted as it is said to be."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from timewarp.assemble.budget import Counted, Draws, chain, drawn, systematic
from timewarp.assemble.flows import bound
from timewarp.assemble.judges import Judge
from timewarp.flow.internal import Internal

from .runs import INTERNAL


def gaussian(rng, count=20_000, wide=1.5):
    """Draws of N(0, wide^2) with weights for N(0, 1)."""
    x = wide * rng.normal(size=count)
    log_weight = -(x**2) / 2 + x**2 / (2 * wide**2)
    return Draws(np.repeat(x, 3).reshape(-1, 1, 1, 3), x[:, None] ** 2 / 2, log_weight[:, None], 4.0)


def particles(rng, count=20_000, size=3):
    """Draws with particles: a shared x ~ N(0, 1.5^2) for N(0, 1), and a y of each ~ N(0, 1.3^2) for N(0.3 x, 1)."""
    x = np.repeat(1.5 * rng.normal(size=(count, 1)), size, 1)
    y = 1.3 * rng.normal(size=(count, size))
    log_weight = -(x**2) / 2 + x**2 / (2 * 1.5**2) - (y - 0.3 * x) ** 2 / 2 + y**2 / (2 * 1.3**2)
    return Draws(np.stack([x, y, y], -1)[:, :, None], y, log_weight, 9.0)


def test_the_chain_and_the_resampled_draws_have_the_law_of_the_target():
    rng = np.random.default_rng(0)
    draws = gaussian(rng)
    for positions, energy in (draws.chain(20_000, rng), draws.resampled(20_000, rng)):
        assert positions.std() == pytest.approx(1.0, abs=0.03)
        assert energy.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.positions.std() == pytest.approx(1.5, abs=0.03)


def test_particles_have_the_law_of_the_target_together():
    rng = np.random.default_rng(0)
    draws = particles(rng, 40_000)
    for positions, y in (draws.chain(40_000, rng), draws.resampled(40_000, rng)):
        x = positions[:, 0, 0]
        assert len(x) == 3 * 40_000
        assert x.std() == pytest.approx(1.0, abs=0.03)
        assert (y - 0.3 * x).std() == pytest.approx(1.0, abs=0.03)
        assert (x * y).mean() == pytest.approx(0.3, abs=0.03)
    alone = Draws(draws.positions, draws.energy, np.zeros_like(draws.log_weight), 9.0).chain(40_000, rng)
    assert (alone[0][:, 0, 0] * alone[1]).mean() == pytest.approx(0.0, abs=0.05)  # what no weights would give


def test_more_particles_tell_more_for_the_same_chain():
    """The mean of y from 400 steps of one particle and of three, each 200 times over."""
    errors = []
    for size in (1, 3):
        rng = np.random.default_rng(1)
        means = [particles(rng, 400, size).chain(400, rng)[1].mean() for _ in range(200)]
        errors.append(np.std(means))
    assert errors[1] < 0.8 * errors[0]


def test_each_is_picked_as_often_as_it_weighs():
    rng = np.random.default_rng(2)
    log_weight = np.log(np.array([[0.5, 0.3, 0.2, 0.0], [0.0, 0.0, 1.0, 3.0]]) + 1e-300)
    picked = np.stack([systematic(log_weight, 5, rng) for _ in range(4000)])
    counts = np.stack([(picked == k).sum(-1) for k in range(4)], -1)
    expected = 5 * np.array([[0.5, 0.3, 0.2, 0.0], [0.0, 0.0, 0.25, 0.75]])
    np.testing.assert_allclose(counts.mean(0), expected, atol=0.05)
    assert (abs(counts - expected) < 1).all()
    assert (np.diff(picked, axis=-1) >= 0).all()
    assert systematic(np.full((1, 3), -np.inf), 4, rng).shape == (1, 4)


def test_the_first_of_two_budgets_is_the_beginning_of_the_other():
    draws = gaussian(np.random.default_rng(0), 400)
    short, long = (draws.chain(n, np.random.default_rng(1))[0] for n in (400, 400))
    assert np.array_equal(short, long)
    assert len(draws.chain(100, np.random.default_rng(1))[0]) == 100


def test_a_draw_of_no_weight_is_never_stayed_at():
    log_weight = np.array([-np.inf, -np.inf, 0.0, -np.inf, -1e9])
    assert chain(log_weight, np.random.default_rng(0)).tolist() == [0, 1, 2, 2, 2]


def test_kish_is_one_for_equal_weights_and_clipping_takes_the_largest():
    flat = Draws(np.zeros((1000, 1, 1, 3)), np.zeros((1000, 1)), np.zeros((1000, 1)), 1.0)
    assert flat.kish() == pytest.approx(1.0)
    spiked = Draws(flat.positions, flat.energy, np.where(np.arange(1000) < 2, 20.0, 0.0)[:, None], 1.0)
    assert spiked.kish() < 0.01 < 0.99 < spiked.kish(clipped=0.002)


@pytest.mark.parametrize("size", [1, 3])
def test_a_draw_costs_what_it_asks_the_energy_for(shards, size):
    judge = Judge.read(shards / "GG.safetensors")
    counted = Counted(judge.peptide.potential)
    judge.peptide.response.energy = counted
    flow = Internal(replace(INTERNAL, harmonics=12)).eval().requires_grad_(False)
    proposal = bound(flow, judge.peptide)
    rng, start = torch.Generator().manual_seed(0), judge.peptide.molecule.reference.float()
    draws = drawn(proposal, counted, start, 12, rng, size)
    at, push = judge.peptide.stiff.cost
    least = at + (push + 1) * size
    assert least <= draws.cost < least + 3  # some go on
    assert draws.positions.shape == (12, size, judge.peptide.molecule.atoms, 3)
    flat = torch.as_tensor(draws.positions).flatten(0, 1)
    expected = judge.peptide.potential(flat).double()
    np.testing.assert_allclose(draws.energy.ravel(), expected.numpy(), rtol=1e-5)
    density = proposal.density(flat, flat.new_zeros(*flat.shape[:2], 0))
    np.testing.assert_allclose(draws.log_weight.ravel(), (-expected - density.double()).numpy(), atol=0.02)


def test_drawing_ends_once_the_budget_is_spent(shards, monkeypatch):
    judge = Judge.read(shards / "GG.safetensors")
    monkeypatch.setattr(import_module("timewarp.assemble.budget"), "AT_ONCE", 4)
    counted = Counted(judge.peptide.potential)
    judge.peptide.response.energy = counted
    proposal = bound(Internal(replace(INTERNAL, harmonics=12)).eval().requires_grad_(False), judge.peptide)
    start, whole = judge.peptide.molecule.reference.float(), torch.Generator().manual_seed(0)
    draws = drawn(proposal, counted, start, 100, whole, 2, enough=60)
    assert counted.evaluations == pytest.approx(draws.cost * len(draws.energy))
    assert 60 <= counted.evaluations < 60 + 4 * 14
    more = drawn(proposal, counted, start, 12, torch.Generator().manual_seed(0), 2)
    count = min(len(draws.energy), len(more.energy))
    np.testing.assert_array_equal(draws.positions[:count], more.positions[:count])  # the same, as far as they go
