"""Decisions: the sign, what is not finite, and where chains may start."""

import math

import pytest
import torch
from scipy import stats

from timewarp.mcmc import accept
from timewarp.state import State

from .toys import seeded


def rate(energy, proposed, log_ratio, count=100_000):
    values = (torch.full((count,), v, dtype=torch.float64) for v in (energy, proposed, log_ratio))
    return accept.metropolis(*values, seeded(0)).double().mean().item()


def test_accepts_with_the_metropolis_probability():
    # uphill by 1, with a proposal that is e^0.4 times as likely to be made backward as forward
    assert rate(3.0, 4.0, 0.4) == pytest.approx(math.exp(-0.6), abs=0.006)
    assert rate(3.0, 4.0, -0.4) == pytest.approx(math.exp(-1.4), abs=0.006)
    assert rate(4.0, 3.0, 0.0) == 1
    assert rate(0.0, 0.0, 0.0) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_rejected(bad):
    assert rate(0.0, bad, 0.0) == 0
    assert rate(0.0, -5.0, bad) == 0


def test_the_impossible_is_never_accepted():
    # 2^26 draws: a uniform variable in float32 is 0 four times among them, and 0 < exp(-100)
    rng, zero = seeded(1), torch.zeros(2**20)
    assert not any(accept.metropolis(zero, zero + 100, zero, rng).any() for _ in range(64))


def test_rise_below():
    energy = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
    proposed = torch.tensor([-50.0, 11.0, 11.1, math.nan, -math.inf])
    assert accept.rise_below(energy, proposed, 10.0).tolist() == [True, True, False, False, False]


def test_velocity_log_prob_is_that_of_normals():
    v = torch.randn(4, 5, 3, generator=seeded(0), dtype=torch.float64)
    expected = torch.as_tensor(stats.norm.logpdf(v.numpy())).sum((-2, -1))
    torch.testing.assert_close(accept.velocity_log_prob(v), expected)
    assert accept.velocity_log_prob(v[..., :0]).tolist() == [0.0] * 4


def test_bad_initial_states_raise():
    def energy(x):
        return x.square().sum((-2, -1))

    x = torch.zeros(4, 2, 3)
    assert accept.initial_energy(energy, State.at(x)).dtype == torch.float64
    with pytest.raises(ValueError, match=r"expected initial positions of shape \[chains, atoms, 3\], got \[2, 3\]"):
        accept.initial_energy(energy, State.at(x[0]))
    with pytest.raises(ValueError, match="got nan in chain 2; check the structure"):
        accept.initial_energy(energy, State.at(x.index_fill(0, torch.tensor([2]), torch.nan)))
    with pytest.raises(
        ValueError, match=r"initial energy U/kT, finite for every chain; got inf in chain 0, .*minimise"
    ):
        accept.initial_energy(lambda x: energy(x) + torch.inf, State.at(x))
