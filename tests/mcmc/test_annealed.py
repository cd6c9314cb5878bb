"""Annealed independence sampling: paths have unbiased weights both ways, and the chain on them is exact."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp.kernel import Factored, run
from timewarp.mcmc import Annealed, Mixture, Propose, annealed, split
from timewarp.mcmc.split import Point, turned
from timewarp.state import State

from .bent import BENT, Straight, normal, nudge
from .toys import ks, seeded


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Toys cost next to nothing a path."""
    monkeypatch.setattr(annealed, "side_by_side", lambda atoms: 100_000)


def kernel(stages=3, width=5, kind=Annealed, energy=BENT):
    return kind(energy, Straight(energy), stages, width, 0.4 * math.pi)


def at(x):
    return State.at(x, 0)


def invariance(made, steps=15, chains=6000, seed=0):
    """p-value of: chains that start in the target's law are still in it."""
    rng = seeded(seed)
    state = made.init(at(BENT.draw(chains, rng)))
    for state, _ in run(made, state, steps, rng):  # noqa: B020, B007
        pass
    return BENT.p_value(state.state.positions)


def with_nudges(made):
    return Mixture((made, Propose(made.energy, nudge)), (1.0, 2.0))


def z_score(log_weights):
    """By how many standard errors the mean weight is off 1."""
    w = log_weights.exp()
    return float((w.mean() - 1).abs() / (w.std() / math.sqrt(len(w))))


def crooks(made):
    """By how many standard errors E[W / (1 + W)] forward is off E[1 / (1 + W)] backward; both are bounded."""
    there, back = torch.sigmoid(forward(made)), torch.sigmoid(-backward(made))
    return float((there.mean() - back.mean()).abs() / ((there.var() + back.var()) / len(back)).sqrt())


def forward(made, count=40_000, seed=0):
    rng = seeded(seed)
    return made.forward(made.proposal.draw(count, rng), rng)[2]


def backward(made, count=40_000, seed=0):
    rng = seeded(seed)
    return made.backward(*made.proposal.given(BENT.draw(count, rng)), rng)


class Flipped(Annealed):
    """The increments of the weight have the other sign."""

    def forward(self, given, rng):
        positions, energy, log_weight = super().forward(given, rng)
        return positions, energy, -2 * given.log_prob - log_weight

    def backward(self, given, noise, rng):
        return -2 * given.log_prob - super().backward(given, noise, rng)


class Forgetful(Annealed):
    """The density of the torsions is left out."""

    def forward(self, given, rng):
        positions, energy, log_weight = super().forward(given, rng)
        return positions, energy, log_weight + given.log_prob

    def backward(self, given, noise, rng):
        return super().backward(given, noise, rng) + given.log_prob


class Unreversed(Annealed):
    """The path of the present is drawn from lambda_1 up to lambda_K."""

    def backward(self, given, noise, rng):
        residual, shares = self._residual(given), self.shares
        point = residual(noise)
        log_weight = -given.log_prob - (shares[1] - shares[0]) * point.residual
        for k in range(1, self.stages + 1):
            point, _ = turned(residual, point, shares[k], self.angle, rng)
            log_weight = log_weight - (shares[k + 1] - shares[k]) * point.residual
        return log_weight


class Late(Annealed):
    """Backward, the weight of a step is taken after the transition that comes behind it."""

    def backward(self, given, noise, rng):
        residual, shares = self._residual(given), self.shares
        point, log_weight = residual(noise), -given.log_prob
        for k in range(self.stages, 0, -1):
            point, _ = turned(residual, point, shares[k], self.angle, rng)
            log_weight = log_weight - (shares[k + 1] - shares[k]) * point.residual
        return log_weight - (shares[1] - shares[0]) * point.residual


@dataclass(frozen=True)
class Stale(Annealed):
    """The present's path is kept when another kernel has moved its end."""

    def moved(self, queue, positions, energy):
        return replace(queue, present=queue.present.moved(positions, energy)), 0


def swollen(monkeypatch):
    """The rotation does not preserve the volume."""
    changed = SimpleNamespace(cos=math.cos, sin=lambda a: 0.6 * math.sin(a), tan=math.tan)
    monkeypatch.setattr(split, "math", changed)


def kicked(monkeypatch, tested):
    """The kick has the wrong lambda; with the Metropolis test that is no harm."""
    changed = SimpleNamespace(cos=math.cos, sin=math.sin, tan=lambda a: 1.8 * math.tan(a))
    monkeypatch.setattr(split, "math", changed)
    if not tested:
        always = SimpleNamespace(metropolis=lambda u, *_: torch.ones_like(u, dtype=torch.bool))
        monkeypatch.setattr(split, "accept", always)


def test_the_toy_is_a_factored_proposal():
    assert isinstance(Straight(BENT), Factored)
    assert BENT.p_value(BENT.draw(8000, seeded(0))) > 0.01


@pytest.mark.parametrize("stages", [0, 1, 4])
def test_weights_are_unbiased_both_ways(stages):
    assert z_score(forward(kernel(stages))) < 3
    assert z_score(-backward(kernel(stages))) < 3
    assert crooks(kernel(stages)) < 3


@pytest.mark.parametrize("wrong", [Flipped, Forgetful, Unreversed, Late])
def test_unbiased_fails_with_a_wrong_weight_or_a_wrong_way_back(wrong):
    assert crooks(kernel(kind=wrong)) > 6


def test_unbiased_fails_when_the_rotation_swells(monkeypatch):
    swollen(monkeypatch)
    assert crooks(kernel()) > 6


def test_a_wrong_kick_is_harmless_only_with_its_test(monkeypatch):
    kicked(monkeypatch, tested=True)
    assert crooks(kernel()) < 3
    kicked(monkeypatch, tested=False)
    assert crooks(kernel()) > 6


def test_stages_narrow_the_weights():
    spread = [float(forward(kernel(stages), 10_000).std()) for stages in (0, 3, 15)]
    assert spread[0] > spread[1] > spread[2]


def test_transitions_leave_each_state_between_invariant():
    grid = np.linspace(-8, 8, 16001)

    def residual(u):
        return Point(u, (0.3 * u**4 + u).sum(-1), 1.2 * u**3 + 1)

    for share in (0.0, 0.4, 1.0):
        weight = np.exp(-0.5 * grid**2 - share * (0.3 * grid**4 + grid))
        cdf = np.cumsum(weight) - 0.5 * weight
        cdf /= cdf[-1]
        rng = seeded(3)
        u = torch.as_tensor(np.interp(torch.rand(8000, generator=rng).double().numpy(), cdf, grid))[:, None]
        point = residual(u)
        for _ in range(4):
            point, accepted = turned(residual, point, share, 0.4 * math.pi, rng)
        assert torch.equal(point.residual, residual(point.noise).residual)
        assert torch.equal(point.gradient, residual(point.noise).gradient)
        assert ks(point.noise, lambda x, cdf=cdf: np.interp(x, grid, cdf), 8000) > 0.01
        assert (point.noise != u).double().mean() > 0.9
        if share:
            assert 0.5 < accepted.double().mean() < 1
            assert ks(point.noise, stats.norm.cdf, 8000) < 1e-6


def test_a_linear_rest_is_integrated_exactly():
    slope = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    point = Point(torch.randn(500, 3, generator=seeded(0)).double(), torch.zeros(500).double(), slope.expand(500, 3))
    point = point._replace(residual=point.noise @ slope)
    for angle in (0.1, 1.0, math.pi / 2):
        moved, accepted = turned(lambda u: Point(u, u @ slope, slope.expand_as(u)), point, 0.7, angle, seeded(1))
        assert accepted.all()
    # a quarter of the circle leaves nothing of where it began
    assert abs(np.corrcoef(moved.noise[:, 0], point.noise[:, 0])[0, 1]) < 0.15
    torch.testing.assert_close(moved.noise.mean(0), -0.7 * slope, atol=0.15, rtol=0)


def test_without_stages_the_weight_is_that_of_independence_sampling():
    made = kernel(0)
    x = BENT.draw(50, seeded(0))
    given, noise = made.proposal.given(x)
    log_q = given.log_prob + normal(noise).sum(-1)
    queue, _ = made.step(made.init(at(x)), seeded(1))
    log_net = log_q + made.proposal.placed(given, noise).log_det
    same = (queue.state.positions == x).flatten(1).all(1)
    assert 0 < same.sum() < 50
    torch.testing.assert_close(queue.log_net[same], log_net[same])


class Crooked(Straight):
    """Its gradient is wrong; it only steers."""

    def placed(self, given, noise):
        at = super().placed(given, noise)
        return at._replace(gradient=0.6 * at.gradient + 0.3 * torch.sin(noise))


def test_a_wrong_gradient_does_no_harm_to_the_law():
    made = Annealed(BENT, Crooked(BENT), 3, 5, 0.4 * math.pi)
    assert crooks(made) < 3
    assert invariance(made) > 0.01


def test_what_is_known_goes_with_its_point():
    made = kernel(3)
    given = made.proposal.draw(2000, seeded(5))
    positions, energy, _ = made.forward(given, seeded(6))
    torch.testing.assert_close(energy, BENT(positions))
    torch.testing.assert_close(positions[:, 0, 0], given.torsions)


@pytest.mark.parametrize("stages", [0, 3])
def test_leaves_the_target_invariant(stages):
    assert invariance(kernel(stages)) > 0.01


def test_comes_to_the_target_from_far_off():
    far = torch.tensor([[[3.0, 2.0, 3.0]]], dtype=torch.float64).expand(4000, -1, -1).clone()
    made = kernel()
    for state, _ in run(made, made.init(at(far)), 40, seeded(2)):  # noqa: B007
        pass
    assert BENT.p_value(state.state.positions) > 0.01


@pytest.mark.parametrize("wrong", [Flipped, Forgetful])
def test_invariance_fails_with_a_wrong_weight(wrong):
    assert invariance(kernel(kind=wrong)) < 1e-6


def test_mixtures_fail_when_the_present_has_the_path_of_another():
    assert invariance(with_nudges(kernel(3, 40)), 40, 40_000) > 0.01
    assert invariance(with_nudges(kernel(3, 40, Stale)), 40, 40_000) < 1e-5


def test_invariance_fails_when_the_rotation_swells(monkeypatch):
    swollen(monkeypatch)
    assert invariance(kernel()) < 1e-6


def test_every_evaluation_is_counted_and_the_energies_are_those_of_the_present():
    made = kernel(3, 4)
    queue = made.init(at(BENT.draw(7, seeded(0))))
    made.proposal.evaluations = spent = 0
    for queue, info in run(made, queue, 13, seeded(1)):  # noqa: B020
        spent += info["evaluations"]
        assert info["tested"].tolist() == [1] * 7
        torch.testing.assert_close(queue.energy, BENT(queue.state.positions))
        torch.testing.assert_close(info["energy"], queue.energy)
    assert made.proposal.evaluations == spent == 4 * (7 * 4 + 7) * (2 + 3 + 1)


def test_resumes_exactly_from_tensors_in_the_middle_of_the_queue():
    mixed = with_nudges(kernel(2, 4))
    rng = seeded(2)
    steps = run(mixed, mixed.init(at(BENT.draw(9, seeded(0)))), 40, rng)
    for _ in range(13):
        parts, _ = next(steps)
    saved, rng_state = {k: v.clone() for k, v in parts.tensors().items()}, rng.get_state()
    straight = [parts for parts, _ in steps][-1].tensors()
    again = [p for p, _ in run(mixed, mixed.restore(saved), 27, seeded(0).set_state(rng_state))][-1].tensors()
    for name, value in straight.items():
        torch.testing.assert_close(value, again[name], rtol=0, atol=0, equal_nan=True)


def test_same_in_same_out_and_chains_do_not_see_each_other():
    made, x = kernel(2, 3), BENT.draw(5, seeded(0))
    ends = []
    for start in (x, x, x.index_fill(0, torch.tensor([2]), 0.1)):
        ends.append([q.state.positions for q, _ in run(made, made.init(at(start)), 7, seeded(0))])
    a, b, c = (torch.stack(e) for e in ends)
    assert torch.equal(a, b)
    assert (a == c).flatten(2).all(-1).all(0).tolist() == [True, True, False, True, True]


def test_no_proposal_comes_twice():
    made, rng, seen = kernel(2, 3), seeded(1), []
    queue = made.init(at(BENT.draw(4, seeded(0))))
    for number in range(12):
        queue, _ = made.step(queue, rng)
        if number % 3 == 0:
            seen.append(queue.energy_waiting.flatten())
    drawn = torch.cat(seen)
    assert len(drawn) == 4 * 3 * 4
    assert len(drawn.unique()) == len(drawn)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_entered(bad):
    def energy(x):
        return torch.where(x[..., 0, 1] > 0.5, bad, BENT(x))

    rng = seeded(4)
    start = BENT.draw(8000, rng)
    start = start[start[:, 0, 1] < 0.5]
    made = with_nudges(kernel(energy=energy))
    for state, _ in run(made, made.init(at(start)), 20, rng):  # noqa: B007
        pass
    x = state.state.positions
    assert (x[:, 0, 1] <= 0.5).all()
    kept = BENT.draw(50_000, seeded(9))
    kept = kept[kept[:, 0, 1] < 0.5]
    for coordinate in range(3):
        seen, law = (t[:, 0, coordinate].numpy() for t in (x, kept))
        if coordinate == 0:
            seen = np.arctan2(np.sin(seen), np.cos(seen))
        assert stats.ks_2samp(seen, law).pvalue > 0.003


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"expected stages >= 0, .* got -1, 128, "):
        Annealed(BENT, Straight(BENT), -1)
    broken = Annealed(BENT, Straight(lambda x: BENT(x) + torch.inf))
    with pytest.raises(ValueError, match=r"density of the initial state, .* got -?inf in chain 0"):
        broken.init(at(BENT.draw(1, seeded(0))))
