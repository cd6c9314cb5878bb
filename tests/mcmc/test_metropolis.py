"""Metropolis with a conditional proposal: the target's law, in the chain's own time, and what breaks it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp.kernel import run
from timewarp.mcmc import Chain, Metropolis, accept, metropolis
from timewarp.state import State

from .toys import (
    GAUSS,
    WELLS,
    Coupled,
    CoupledAt,
    Discrete,
    Separable,
    at_place,
    ergodicity,
    invariance,
    ks,
    normal_log_prob,
    seeded,
    series,
)


@pytest.mark.parametrize("target", [GAUSS, WELLS], ids=["gauss", "wells"])
@pytest.mark.parametrize("width", [1, 6])
def test_leaves_the_target_invariant(target, width):
    assert invariance(Metropolis(target, Coupled(), width), target) > 0.01


@pytest.mark.parametrize("width", [1, 6])
def test_comes_to_the_target_from_far_off(width):
    assert ergodicity(Metropolis(WELLS, Coupled(), width), WELLS, 700) > 0.01


def test_two_atoms():
    target = replace(WELLS, atoms=2)
    assert invariance(Metropolis(target, Coupled(), 6), target) > 0.01


@pytest.mark.parametrize("wrong", [replace(WELLS, tilt=0.0), replace(WELLS, sigma=1.3), replace(WELLS, mean=0.4)])
def test_fails_on_the_wrong_target(wrong):
    assert invariance(Metropolis(WELLS, Coupled(), 6), wrong, 30) < 1e-6


def test_comes_not_to_the_wrong_target():
    assert ergodicity(Metropolis(WELLS, Coupled(), 6), replace(WELLS, tilt=0.0), 1000, chains=100) < 1e-3


def test_fails_with_the_log_ratio_flipped(monkeypatch):
    right = accept.metropolis
    monkeypatch.setattr(accept, "metropolis", lambda u, v, log_ratio, rng: right(u, v, -log_ratio, rng))
    assert invariance(Metropolis(WELLS, Coupled(), 6), WELLS) < 1e-6


def test_fails_with_one_velocity_for_all_tests(monkeypatch):
    right = metropolis._refreshed

    def shared(x, width, channels, rng):
        return right(x, 1, channels, rng).expand(width, *x.shape[:-1], channels)

    kernel = Metropolis(WELLS, Coupled(sigma=0.5), 16)
    assert invariance(kernel, WELLS, 40) > 0.01
    monkeypatch.setattr(metropolis, "_refreshed", shared)
    assert invariance(replace(kernel, width=1), WELLS, 40) > 0.01
    assert invariance(kernel, WELLS, 40) < 1e-6


def test_fails_without_the_refresh(monkeypatch):
    monkeypatch.setattr(metropolis, "_refreshed", lambda x, width, channels, rng: x.new_zeros(width, *x.shape))
    assert invariance(Metropolis(WELLS, Coupled(), 6), WELLS) < 1e-6


def test_fails_without_the_velocities_own_density(monkeypatch):
    monkeypatch.setattr(accept, "velocity_log_prob", lambda v: v.new_zeros(v.shape[:-2]))
    assert invariance(Metropolis(WELLS, Coupled(), 6), WELLS) < 1e-6


def test_fails_with_a_wrong_jacobian(monkeypatch):
    monkeypatch.setattr(CoupledAt, "log_det", lambda self, s_x, s_v: (s_x + s_v).sum((-2, -1)))
    assert invariance(Metropolis(WELLS, Coupled(), 6), WELLS) < 1e-6


def test_steps_counted_once_each_are_biased():
    """The reason why a step counts `tested` times: what is seen at the ends of steps is not the target."""
    rng = seeded(3)
    kernel, chains = Metropolis(WELLS, Coupled(), 12), 8000
    chain = kernel.init(State.at(WELLS.draw(chains, rng), 3, rng))
    for end, _ in run(kernel, chain, 12, rng):
        last = end
    assert ks(last.state.positions[:, 0, 0], WELLS.cdf, chains) < 1e-6


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_step_is_single_tests_until_the_first_acceptance(place):
    """P(tested = k, accepted, x' = j) is exactly that of k - 1 rejections and an acceptance (chi-squared)."""
    toy, width, chains = Discrete(), 3, 40_000
    kernel = Metropolis(toy.energy, toy, width)
    chain, info = kernel.step(kernel.init(at_place(place, chains)), seeded(place))
    passed = toy.single()[1][place]
    stay = 1 - passed.sum()
    expected = {(k, True, j): stay ** (k - 1) * passed[j] for k, j in itertools.product(range(1, width + 1), range(3))}
    expected |= {(width, False, place): stay**width}
    seen = dict.fromkeys(expected, 0)
    ends = chain.state.positions[:, 0, 0].int().tolist()
    for key in zip(info["tested"].tolist(), info["accepted"].tolist(), ends, strict=True):
        seen[key] += 1
    e = np.array([float(v) * chains for v in expected.values()])
    assert stats.chisquare(np.array(list(seen.values())), e * chains / e.sum()).pvalue > 0.01


@pytest.mark.parametrize("width", [1, 4])
def test_the_unrolled_chain_is_the_single_proposal_chain(width):
    """After any number of tests the law is that power of the single-test matrix, whatever the width."""
    toy, chains = Discrete(), 20_000
    kernel = Metropolis(toy.energy, toy, width)
    x = series(kernel, kernel.init(at_place(0, chains)), 6, seeded(5))[:, :, 0, 0].int()
    for tests in (1, 2, 3, 6):
        law = torch.linalg.matrix_power(toy.single()[0], tests)[0].numpy()
        assert stats.chisquare(np.bincount(x[tests - 1], minlength=3), law * chains).pvalue > 0.002


def test_successive_conditional_joint():
    """Geweke: x ~ N(0, 1), y | x ~ N(x, 1); alternating y | x and the kernel for x | y keeps the joint law of both."""
    rng, chains = seeded(8), 8000
    x = torch.randn(chains, 1, 3, generator=rng, dtype=torch.float64)
    for _ in range(25):
        y = x + torch.randn(x.shape, generator=rng, dtype=torch.float64)

        def energy(positions, y=y):
            each = positions.view(-1, *y.shape)
            return (0.5 * each**2 + 0.5 * (each - y) ** 2).sum((-2, -1)).view(positions.shape[:-2])

        kernel = Metropolis(energy, Coupled(), 1)
        x = kernel.step(kernel.init(State.at(x)), rng)[0].state.positions
    y = x + torch.randn(x.shape, generator=rng, dtype=torch.float64)
    for combination, scale in ((x, 1), (y, 2**0.5), (x + y, 5**0.5), (x - y, 1)):
        assert ks(combination[:, 0, 0], stats.norm(scale=scale).cdf, chains) > 0.005


def test_same_in_same_out_and_nothing_is_changed_in_place():
    kernel = Metropolis(WELLS, Coupled(), 4)
    chain = kernel.init(State.at(WELLS.draw(7, seeded(0)), 3, seeded(1)))
    before = {k: v.clone() for k, v in chain.tensors().items()}
    one, two = (kernel.step(chain, seeded(2)) for _ in range(2))
    for name, value in one[0].tensors().items():
        assert torch.equal(value, two[0].tensors()[name])
        assert torch.equal(chain.tensors()[name], before[name])
    assert one[1].keys() == two[1].keys()
    assert not torch.equal(one[0].state.positions, kernel.step(chain, seeded(3))[0].state.positions)


def test_chains_do_not_see_each_other():
    kernel = Metropolis(WELLS, Coupled(), 4)
    x = WELLS.draw(5, seeded(0))
    other = x.index_fill(0, torch.tensor([1, 4]), 0.7)
    ends = []
    for start in (x, other):
        rng = seeded(2)
        for chain, _ in run(kernel, kernel.init(State.at(start, 3, seeded(1))), 20, rng):
            last = chain
        ends.append(last.state.positions)
    same = [torch.equal(a, b) for a, b in zip(*ends, strict=True)]
    assert same == [True, False, True, True, False]


def test_the_info_is_what_happened():
    kernel = Metropolis(WELLS, Coupled(), 5)
    chain = kernel.init(State.at(WELLS.draw(300, seeded(0)), 3, seeded(1)))
    new, info = kernel.step(chain, seeded(2))
    assert info["evaluations"] == 5 * 300
    assert set(info["tested"].tolist()) == {1, 2, 3, 4, 5}
    moved = (new.state.positions != chain.state.positions).any(-1).any(-1)
    assert torch.equal(moved, info["accepted"])
    torch.testing.assert_close(WELLS(new.state.positions), new.energy)
    torch.testing.assert_close(info["energy"], new.energy)
    winner = info["proposed_energy"][info["tested"] - 1, torch.arange(300)]
    torch.testing.assert_close(new.energy, torch.where(info["accepted"], winner, chain.energy))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_entered_and_does_not_spoil_the_rest(bad):
    """A region where the energy fails has probability 0: the chain is exact for the target without it."""

    def energy(x):
        return torch.where(x[..., 0, 0] > 0.5, bad, GAUSS(x))

    def cdf(x):
        return np.clip(GAUSS.cdf(x) / GAUSS.cdf(0.5), 0, 1)

    kernel, rng = Metropolis(energy, Coupled(), 4), seeded(4)
    start = GAUSS.draw(12000, rng)
    start = start[start[:, 0, 0] < 0.5][:5000]
    x = series(kernel, kernel.init(State.at(start, 3, rng)), 12, rng)
    assert x.isfinite().all()
    assert (x[..., 0, 0] <= 0.5).all()
    assert ks(x[-1, :, 0, 0], cdf, 5000) > 0.01


def test_a_density_that_is_not_finite_is_rejected(monkeypatch):
    right = CoupledAt.log_prob

    def broken(self, state):
        return torch.where(self.x[:, 0, 0] > 0, torch.nan, right(self, state))

    monkeypatch.setattr(CoupledAt, "log_prob", broken)
    kernel, rng = Metropolis(GAUSS, Coupled(), 4), seeded(0)
    start = -GAUSS.draw(2000, rng).abs()
    chain, info = kernel.step(kernel.init(State.at(start, 3, rng)), rng)
    assert info["accepted"].any()
    assert (chain.state.positions[info["accepted"]][:, 0, 0] <= 0).all()


def test_saved_tensors_come_back():
    kernel = Metropolis(GAUSS, Coupled(), 2)
    chain = kernel.init(State.at(GAUSS.draw(3, seeded(0)), 3, seeded(1)))
    back = kernel.restore(chain.tensors())
    assert isinstance(back, Chain)
    assert all(torch.equal(v, back.tensors()[k]) for k, v in chain.tensors().items())


def test_float32_positions_stay_float32():
    kernel = Metropolis(GAUSS, Coupled(), 2)
    chain, _ = kernel.step(kernel.init(State.at(GAUSS.draw(3, seeded(0)).float(), 3, seeded(1))), seeded(2))
    assert chain.state.positions.dtype == chain.state.velocities.dtype == torch.float32
    assert chain.energy.dtype == torch.float64


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="expected a width of at least 1 proposal, got 0"):
        Metropolis(GAUSS, Coupled(), 0)
    with pytest.raises(ValueError, match="inf in chain 1; minimise the structure first"):
        Metropolis(lambda x: torch.tensor([0.0, torch.inf]), Coupled(), 1).init(State.at(torch.zeros(2, 1, 3)))


def test_the_toys_themselves():
    """The proposal's density is that of its samples, and integrates to one: otherwise the laws above are hollow."""
    rng, toy = seeded(0), Coupled()
    x = torch.tensor([[[-0.8, 0.4, 1.3]]], dtype=torch.float64)
    state, log_prob = toy(x).sample(2000, rng)
    starts = x.expand(2000, 1, 3)
    torch.testing.assert_close(toy(starts).log_prob(state[:, 0]), log_prob[:, 0])
    # importance weights of a wide normal over (x', v') average to 1
    z = torch.randn(2, 200_000, 1, 3, generator=rng, dtype=torch.float64)
    wide = State(1.6 * z[0], 1.8 * z[1])
    base = normal_log_prob(z[0]) + normal_log_prob(z[1]) - 3 * np.log(1.6 * 1.8)
    weight = (toy(x.expand(200_000, 1, 3)).log_prob(wide) - base).exp()
    assert weight.mean().item() == pytest.approx(1, abs=5 * weight.std().item() / 200_000**0.5)
    assert weight.std() < 20
    draws = Separable(barrier=2.0, tilt=0.5).draw(5000, rng)[:, 0, 0]
    assert ks(draws, WELLS.cdf, 5000) > 0.01
