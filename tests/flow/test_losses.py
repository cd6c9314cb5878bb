"""The terms of the loss: what they are worth where it is known, and where their gradients lead."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from timewarp.energy import Potential
from timewarp.flow.internal import InternalConfig
from timewarp.flow.losses import Objective, Own, Terms, log_ratio, normal, spread, tempered
from timewarp.state import State

from .molecules import chart_of, flow_of, molecule_of, proposal_of


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Step:
    """x' = decay x + shift + scale e, v' = e', with two velocity channels."""

    flow: nn.Module
    positions: torch.Tensor

    def log_prob(self, state):
        mean = self.flow.decay * self.positions + self.flow.shift
        moved = Normal(mean, self.flow.log_scale.exp()).log_prob(state.positions).sum((-1, -2))
        return moved + Normal(0.0, 1.0).log_prob(state.velocities).sum((-1, -2))

    def sample(self, count, rng):
        shape = (count, *self.positions.shape)
        e = torch.randn(shape, generator=rng, dtype=self.positions.dtype)
        positions = self.flow.decay * self.positions + self.flow.shift + self.flow.log_scale.exp() * e
        state = State.at(positions, 2, rng)
        return state, self.log_prob(state)


class Walk(nn.Module):
    """Autoregression of order 1; without decay it is memoryless."""

    def __init__(self, decay, scale, shift=0.0):
        super().__init__()
        self.memoryless, self.channels = decay == 0, 2
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float64))
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64).log())

    def forward(self, positions):
        return Step(self, positions)


def gaussian(mean=0.0, scale=1.0):
    return lambda x: (0.5 * ((x - mean) / scale).square()).sum((-1, -2))


def starts(count=200, seed=0):
    return State.at(torch.randn(count, 2, 3, generator=seeded(seed), dtype=torch.float64), 2, seeded(seed + 1))


def test_a_reversible_walk_has_a_ratio_of_one():
    """x' = a x + sqrt(1 - a^2) e leaves N(0, 1) as it is, in detailed balance."""
    ratio, _ = log_ratio(Walk(0.6, 0.8), gaussian(), starts(), seeded(2))
    torch.testing.assert_close(ratio, torch.zeros_like(ratio), atol=1e-10, rtol=0)
    ratio, _ = log_ratio(Walk(0.6, 0.7), gaussian(), starts(), seeded(2))
    assert ratio.abs().mean() > 0.1


def test_the_ratio_is_that_of_metropolis_and_hastings():
    walk, energy, x = Walk(0.5, 0.3, shift=0.2), gaussian(0.4, 1.5), starts(3)
    ratio, log_prob = log_ratio(walk, energy, x, seeded(2))
    (drawn, expected) = walk(x.positions).sample(1, seeded(2))
    y = drawn[0]
    torch.testing.assert_close(log_prob, expected[0])
    there = Normal(0.5 * x.positions + 0.2, 0.3).log_prob(y.positions).sum((1, 2))
    back = Normal(0.5 * y.positions + 0.2, 0.3).log_prob(x.positions).sum((1, 2))
    # the velocities are drawn from their equilibrium, so that they drop out
    torch.testing.assert_close(ratio, energy(x.positions) - energy(y.positions) + back - there)


def test_without_memory_it_is_the_reverse_divergence():
    """E [ln p - ln mu] of Gaussians: ln(s/q) + (q^2 + (m - n)^2) / (2 s^2) - 1/2 a coordinate."""
    target, x = gaussian(0.4, 1.5), starts(20000)
    ratio, log_prob = log_ratio(Walk(0.0, 0.5, shift=-0.3), target, x, seeded(2))
    found = -(ratio - target(x.positions)).mean() + 6 * math.log(1.5 * math.sqrt(2 * math.pi))
    expected = 6 * (math.log(1.5 / 0.5) + (0.25 + 0.49) / (2 * 2.25) - 0.5)
    assert found.item() == pytest.approx(expected, abs=0.05)
    entropy = 6 * (0.5 + math.log(0.5)) + 10 * 0.5 * math.log(2 * math.pi) + 4 * 0.5
    assert -log_prob.mean().item() == pytest.approx(entropy, abs=0.05)


def taught(flow, objective, energy, steps=300):
    optimizer, rng = torch.optim.Adam(flow.parameters(), lr=0.02), seeded(3)
    for step in range(steps):
        batch = SimpleNamespace(own=[Own(flow, energy, starts(64, 2 * step))], terms=len)
        loss, told = objective(flow, batch, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(flow.shift.detach()), float(flow.log_scale.detach().exp()), told


def test_without_memory_the_gradient_is_that_of_the_divergence_and_the_entropy():
    """Of Gaussians: d/dm = (m - n)/s^2 and d/d ln q = q^2/s^2 - 1, each coordinate; the entropy adds its weight."""
    flow = Walk(0.0, 0.5, shift=-0.3)
    own = [Own(flow, gaussian(0.4, 1.5), starts(100_000))]
    loss, told = Objective(0.0, 1.0, 0.5, rise=math.inf)(flow, SimpleNamespace(own=own, terms=len), seeded(2))
    loss.backward()
    assert loss.item() == pytest.approx(-told["log_ratio"] - 0.5 * told["entropy"])
    assert flow.shift.grad.item() == pytest.approx(6 * -0.7 / 2.25, abs=0.1)
    assert flow.log_scale.grad.item() == pytest.approx(6 * (0.25 / 2.25 - 1 - 0.5), abs=0.2)


def test_own_samples_alone_lead_to_the_target():
    flow = Walk(0.0, 0.5, shift=2.0)
    shift, scale, told = taught(flow, Objective(likelihood=0.0, acceptance=1.0), gaussian(-0.6, 1.3))
    assert (shift, scale) == (pytest.approx(-0.6, abs=0.1), pytest.approx(1.3, abs=0.1))
    assert told.keys() == {"log_ratio", "entropy"}


def test_the_acceptance_term_makes_a_walk_reversible_and_the_entropy_term_keeps_it_moving():
    flow = Walk(0.6, 0.3, shift=0.5)
    shift, scale, _ = taught(flow, Objective(likelihood=0.0, acceptance=1.0), gaussian())
    assert (shift, scale) == (pytest.approx(0.0, abs=0.05), pytest.approx(0.8, abs=0.05))
    _, wider, _ = taught(Walk(0.6, 0.3), Objective(likelihood=0.0, acceptance=1.0, entropy=0.5), gaussian())
    assert wider > scale + 0.1


def test_the_weights_weigh_and_a_weight_of_zero_leaves_a_term_uncomputed():
    parts = {"a": torch.tensor([1.0, 3.0]).double(), "b": torch.tensor([0.0, -2.0]).double()}
    flow = Walk(0.5, 0.3)
    data = SimpleNamespace(own=[], terms=lambda model, rng: Terms(parts))
    loss, told = Objective(3.0)(flow, data, seeded(0))
    assert (float(loss), told) == (-3.0, {"a": -2.0, "b": 1.0})
    both = [Own(flow, gaussian(), starts(5)), Own(flow, gaussian(0.3), starts(7))]
    judged = SimpleNamespace(own=both, terms=data.terms)
    loss, told = Objective(2.0, 0.5, 0.25)(flow, judged, seeded(4))
    rng = seeded(4)
    ratios, log_probs = zip(*(log_ratio(*own, rng) for own in both), strict=True)
    ratio, log_prob = (torch.stack([x.mean() for x in xs]).mean() for xs in (ratios, log_probs))
    torch.testing.assert_close(loss, -2.0 - 0.5 * ratio + 0.25 * log_prob)
    assert told["log_ratio"] == pytest.approx(ratio.item())

    def never(*_):
        raise AssertionError

    Objective(1.0)(flow, SimpleNamespace(own=[Own(never, never, starts(5))], terms=data.terms), seeded(0))
    Objective(0.0, 1.0)(flow, SimpleNamespace(own=both, terms=never), seeded(0))


def test_the_spread_is_that_about_the_median_of_each_molecule():
    gap = torch.tensor([[0.0, 1.0, 2.0, 10.0, 0.5], [7.0, 7.0, 7.0, 7.0, 7.0]], requires_grad=True)
    value = spread(gap)  # medians 1 and 7; Huber: d^2 / 2, beyond the bound 6 (|d| - 6 / 2)
    assert value.item() == pytest.approx((0.5 + 0 + 0.5 + 6 * (9 - 3) + 0.125) / 10)
    value.backward()
    torch.testing.assert_close(gap.grad[0], torch.tensor([-1.0, 0.0, 1.0, 6.0, -0.5]) / 10)
    assert not gap.grad[1].any()
    shifted = spread(gap + torch.tensor([[5.0], [-2.0]]))
    assert shifted.item() == pytest.approx(value.item())  # of each molecule up to a constant


def test_the_spread_is_weighed_and_told_where_it_is_known():
    gap = torch.tensor([[0.0, 1.0, 3.0]])
    parts = {"torsion": torch.zeros(1, 3)}
    known, unknown = (SimpleNamespace(own=[], terms=lambda *_, g=g: Terms(parts, g)) for g in (gap, None))
    loss, told = Objective(1.0, spread=2.0)(nn.Identity(), known, seeded(0))
    assert loss.item() == pytest.approx(2.0 * (0.5 + 0.0 + 2.0) / 3)
    assert told["spread"] == pytest.approx(2.5 / 3)
    loss, told = Objective(1.0, spread=2.0)(nn.Identity(), unknown, seeded(0))
    assert loss.item() == 0.0
    assert "spread" not in told


def test_the_spread_alone_leads_to_the_density():
    """A categorical density, at samples that are not its own: the gaps become equal."""
    target = torch.tensor([0.5, 0.1, 0.3, 0.1]).log()
    logits = torch.zeros(4, requires_grad=True)
    optimizer, rng = torch.optim.Adam([logits], lr=0.05), seeded(0)
    for _ in range(400):
        pick = torch.randint(4, (1, 64), generator=rng)
        optimizer.zero_grad()
        spread(7.0 + target[pick] - torch.log_softmax(logits, 0)[pick]).backward()
        optimizer.step()
    torch.testing.assert_close(torch.log_softmax(logits.detach(), 0), target, atol=0.02, rtol=0)


def test_high_energies_count_by_their_logarithm_and_infinite_ones_have_no_gradient():
    u = torch.tensor([-5.0, 9.0, 10.0, 11.0, 1e6, math.inf, math.nan], requires_grad=True)
    tame = tempered(u, 10.0)
    torch.testing.assert_close(tame[:5], torch.tensor([-5.0, 9.0, 10.0, 10 + math.log(2.0), 10 + math.log(1e6 - 9)]))
    tame.sum().backward()
    torch.testing.assert_close(u.grad, torch.tensor([1.0, 1.0, 1.0, 0.5, 1 / (1e6 - 9), 0.0, 0.0]))
    assert tame.isfinite().all()
    torch.testing.assert_close(tempered(u[:5], math.inf), u[:5])


def test_velocities_weigh_as_normal_numbers():
    v = torch.randn(3, 4, 2, generator=seeded(0))
    torch.testing.assert_close(normal(v), Normal(0.0, 1.0).log_prob(v).sum((1, 2)))
    assert torch.equal(normal(v[..., :0]), torch.zeros(3))


CONFIG = InternalConfig(width=16, heads=2, encoder_layers=1, torsion_layers=1, harmonics=3)


def own_of(flow, count, sequence="GG"):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    x = molecule.reference.expand(count, -1, -1)
    bound = proposal_of(molecule, chart, flow, torch.float64)
    return Own(bound, Potential(molecule, dtype=torch.float64), State.at(x))


def mean_ratio(own):
    return log_ratio(*own, seeded(6), rise=100.0)[0].mean()


def test_an_internal_flow_learns_a_molecule_from_its_energy_alone():
    flow = flow_of(torch.float64, spread=0.3, config=CONFIG)  # untrained weights of zero are as good as trained ones
    own, rng = own_of(flow, 64), seeded(7)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    with torch.no_grad():
        before = log_ratio(*own_of(flow, 200), seeded(8), rise=30.0)[0].mean()
    for _ in range(12):
        loss, _ = Objective(0.0, 1.0)(flow, SimpleNamespace(own=[own], terms=len), rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        after = log_ratio(*own_of(flow, 200), seeded(8), rise=30.0)[0].mean()
    assert after > before + 3.0
