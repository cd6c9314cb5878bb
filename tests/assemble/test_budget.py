"""A budget of energy evaluations is spent and counted as it is said to be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from timewarp.assemble.budget import Counted, Draws, chain, drawn
from timewarp.assemble.flows import bound
from timewarp.assemble.judges import Judge
from timewarp.flow.internal import Internal

from .runs import INTERNAL


def gaussian(rng, count=20_000, wide=1.5):
    """Draws of N(0, wide^2) with weights for N(0, 1)."""
    x = wide * rng.normal(size=count)
    log_weight = -(x**2) / 2 + x**2 / (2 * wide**2)
    return Draws(np.repeat(x, 3).reshape(-1, 1, 3), x**2 / 2, log_weight, 4.0)


def test_the_chain_and_the_resampled_draws_have_the_law_of_the_target():
    rng = np.random.default_rng(0)
    draws = gaussian(rng)
    for positions, energy in (draws.chain(20_000, rng), draws.resampled(rng)):
        assert positions.std() == pytest.approx(1.0, abs=0.03)
        assert energy.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.positions.std() == pytest.approx(1.5, abs=0.03)


def test_the_first_of_two_budgets_is_the_beginning_of_the_other():
    draws = gaussian(np.random.default_rng(0), 400)
    short, long = (draws.chain(n, np.random.default_rng(1))[0] for n in (400, 400))
    assert np.array_equal(short, long)
    assert len(draws.chain(100, np.random.default_rng(1))[0]) == 100


def test_a_draw_of_no_weight_is_never_stayed_at():
    log_weight = np.array([-np.inf, -np.inf, 0.0, -np.inf, -1e9])
    assert chain(log_weight, np.random.default_rng(0)).tolist() == [0, 1, 2, 2, 2]


def test_kish_is_one_for_equal_weights_and_clipping_takes_the_largest():
    flat = Draws(np.zeros((1000, 1, 3)), np.zeros(1000), np.zeros(1000), 1.0)
    assert flat.kish() == pytest.approx(1.0)
    spiked = Draws(flat.positions, flat.energy, np.where(np.arange(1000) < 2, 20.0, 0.0), 1.0)
    assert spiked.kish() < 0.01 < 0.99 < spiked.kish(clipped=0.002)


def test_a_draw_costs_an_energy_and_a_gradient_for_each_newton_step(shards):
    judge = Judge.read(shards / "GG.safetensors")
    counted = Counted(judge.peptide.potential)
    judge.peptide.response.energy = counted
    flow = Internal(replace(INTERNAL, harmonics=12)).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    draws = drawn(bound(flow, judge.peptide), counted, judge.peptide.molecule.reference.float(), 12, rng)
    assert sum(judge.peptide.stiff.cost) + 1 <= draws.cost < sum(judge.peptide.stiff.cost) + 3  # some go on
    assert draws.positions.shape == (12, judge.peptide.molecule.atoms, 3)
    expected = judge.peptide.potential(torch.as_tensor(draws.positions)).double().numpy()
    np.testing.assert_allclose(draws.energy, expected, rtol=1e-5)
