"""Regrowth: what stays is the present's own, what is drawn is weighed given it, and the chain is exact."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp.kernel import Given, Placed, Regrowing, run
from timewarp.mcmc import Annealed, Mixture, Propose, Regrowth, annealed

from .bent import nudge
from .test_annealed import at
from .toys import ks, seeded

WIDE = ((0.0, 0.0, 1.0), (0.8, 0.0, 0.6), (-0.5, 0.3, 0.7))  # x_n | x_n-1: slope, centre, scale of the target
FLAT = ((0.0, 0.3, 1.2), (0.5, 0.1, 0.9), (-0.2, 0.2, 1.0))  # and of the proposal


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Toys cost next to nothing a path."""
    monkeypatch.setattr(annealed, "side_by_side", lambda atoms: 100_000)


def normal(e):
    return -0.5 * e.square() - 0.5 * math.log(2 * math.pi)


def errors(taus, law):
    """N(0, 1) each, if the taus follow the law."""
    before = torch.nn.functional.pad(taus[..., :-1], (1, 0))
    slope, centre, scale = torch.tensor(law, dtype=taus.dtype).unbind(1)
    return (taus - slope * before - centre) / scale


def chained(noise, law, kept=None):
    """The taus of these errors, after those that are kept."""
    taus = [] if kept is None else list(kept.unbind(-1))
    for n in range(len(taus), len(law)):
        slope, centre, scale = law[n]
        taus.append(slope * (taus[-1] if taus else 0.0) + centre + scale * noise[..., n])
    return torch.stack(taus, -1)


def energy(x):
    """-ln of the density of the taus and of y, [2, 3]: a chain, and three numbers about its end."""
    taus, y = x[..., 0, :], x[..., 1, :]
    return -(normal(errors(taus, WIDE)) + normal((y - 0.5 * taus[..., 2:]) / 0.8)).sum(-1)


def draw(chains, rng):
    noise = torch.randn(chains, 2, 3, generator=rng, dtype=torch.float64)
    taus = chained(noise[:, 0], WIDE)
    return torch.stack([taus, 0.5 * taus[:, 2:] + 0.8 * noise[:, 1]], 1)


def p_value(x):
    taus, y = x[..., 0, :], x[..., 1, :]
    e = torch.cat([errors(taus, WIDE), (y - 0.5 * taus[..., 2:]) / 0.8], 1)
    p = [ks(e[:, k], stats.norm.cdf, len(e)) for k in range(6)]
    for k in range(6):
        for other in range(k):
            product = e[:, k] * e[:, other]
            p.append(2 * stats.norm.sf(abs(float(product.mean()) * math.sqrt(len(e)) / float(product.std()))))
    return min(1.0, len(p) * min(p))


class Links:
    """q of three taus, each given the one before, and noise that is carried to y along a line."""

    cost, noises, parts = (1, 1), 3, 2

    def __init__(self):
        self.seen = []

    def _given(self, taus, kept):
        return Given(taus, normal(errors(taus, FLAT))[:, kept:].sum(-1) - self.scales(kept), (taus,))

    def scales(self, kept):
        return sum(math.log(scale) for _, _, scale in FLAT[kept:])

    def draw(self, count, rng):
        return self._given(chained(torch.randn(count, 3, generator=rng, dtype=torch.float64), FLAT), 0)

    def regrown(self, present, kept, rows, rng):
        self.seen.append(kept)
        noise = torch.randn(len(rows), 3, generator=rng, dtype=torch.float64)
        return self._given(chained(noise, FLAT, present[rows, :kept]), kept)

    def torsions(self, positions):
        return positions[:, 0]

    def given(self, positions, kept=0):
        taus, y = positions.unbind(1)
        return self._given(taus, kept), (y - 0.2 * taus[:, 2:]) / 1.1

    def placed(self, given, noise):
        x = torch.stack([given.torsions, 0.2 * given.torsions[:, 2:] + 1.1 * noise], 1)
        return Placed(x, energy(x), torch.full_like(noise, -math.log(1.1)).sum(-1), torch.zeros_like(noise))


class WholePresent(Links):
    """The present is weighed as if all of it had been drawn."""

    def given(self, positions, kept=0):
        return super().given(positions)


class WholeDraws(Links):
    """What is regrown is weighed as if all of it had been drawn."""

    def regrown(self, present, kept, rows, rng):
        return self._given(super().regrown(present, kept, rows, rng).torsions, 0)


class Strangers(Links):
    """What is regrown grows on another chain."""

    def regrown(self, present, kept, rows, rng):
        return super().regrown(present, kept, rows.roll(1), rng)


class Stale(Regrowth):
    """Proposals stay when another kernel has moved the torsions that they share."""

    def moved(self, queue, positions, energy):
        return Annealed.moved(self, queue, positions, energy)


def kernel(proposal=Links, kind=Regrowth, width=4, particles=3):
    return kind(energy, proposal(), 0, width, particles=particles)


def mixed(made):
    return Mixture((made, Propose(energy, nudge)), (1.0, 1.0))


def invariance(made, steps=24, chains=6000, seed=0):
    rng = seeded(seed)
    state = made.init(at(draw(chains, rng)))
    for state, _ in run(made, state, steps, rng):  # noqa: B020, B007
        pass
    return p_value(state.state.positions)


def test_the_toy_is_a_regrowing_proposal_and_its_target_normalised():
    assert isinstance(Links(), Regrowing)
    assert p_value(draw(8000, seeded(0))) > 0.01


@pytest.mark.parametrize("particles", [1, 3])
def test_leaves_the_target_invariant(particles):
    assert invariance(kernel(particles=particles)) > 0.01
    assert invariance(mixed(kernel(particles=particles)), 40) > 0.01


@pytest.mark.parametrize("wrong", [WholePresent, WholeDraws, Strangers])
def test_invariance_fails_with_a_wrong_proposal(wrong):
    assert invariance(kernel(wrong)) < 1e-6


def test_invariance_fails_when_proposals_outlive_what_they_share():
    """Which kernel is asked when decides how much of it shows, and is the same for all chains: so more than once."""
    right, wrong = mixed(kernel(width=10)), mixed(kernel(kind=Stale, width=10))
    assert min(invariance(right, 60, seed=seed) for seed in range(4)) > 0.0025
    assert min(invariance(wrong, 60, seed=seed) for seed in range(4)) < 1e-6


def test_with_whole_proposals_it_finds_the_target_from_a_point():
    whole = Annealed(energy, Links(), 0, 8, particles=3)
    made = Mixture((whole, kernel()), (1.0, 1.0))
    rng = seeded(3)
    state = made.init(at(torch.zeros(6000, 2, 3, dtype=torch.float64)))
    for state, _ in run(made, state, 60, rng):  # noqa: B020, B007
        pass
    assert p_value(state.state.positions) > 0.01


def test_the_first_torsions_stay_for_a_block_and_every_number_of_them_is_tried():
    made = kernel(width=5)
    rng = seeded(1)
    state = made.init(at(draw(50, rng)))
    before, changed = state.state.positions[:, 0], []
    for state, _ in run(made, state, 100, rng):  # noqa: B020
        after = state.state.positions[:, 0]
        changed.append((after != before).any(0))
        before = after
    assert set(made.proposal.seen) == {1, 2}
    assert len(made.proposal.seen) == 100 / 5
    changed = torch.stack(changed)
    assert not changed[:, 0].any()
    blocks = changed[:, 1].unflatten(0, (-1, 5)).any(1)
    assert blocks.tolist() == [kept == 1 for kept in made.proposal.seen]


def pits(x):
    """The proposal's own law, but for a pit at the end of tau_2 and one at the end of tau_3, which it does not know."""
    taus, y = x[..., 0, :], x[..., 1, :]
    e = errors(taus, FLAT)
    depth = 5.0 * ((e[..., 1] > 3).double() + (e[..., 2] < -3).double())
    return -(normal(e).sum(-1) + normal((y - 0.2 * taus[..., 2:]) / 1.1).sum(-1) + depth)


class InPits(Links):
    def placed(self, given, noise):
        found = super().placed(given, noise)
        return found._replace(energy=pits(found.positions))


def test_a_state_whose_weight_has_come_about_in_two_places_is_left_in_two_steps():
    """Whole proposals have to pay for both at once, regrowth pays for the last one first."""
    noise = torch.tensor([[0.0, 3.5, -3.5]], dtype=torch.float64).expand(4000, 3)
    taus = chained(noise, FLAT)
    x = torch.stack([taus, 0.2 * taus[:, 2:].expand(-1, 3)], 1)
    whole, part = Annealed(pits, InPits(), 0, 30), Regrowth(pits, InPits(), 0, 3)
    left = []
    for made in (whole, Mixture((whole, part), (1.0, 1.0))):
        state, rng = made.init(at(x)), seeded(4)
        for state, _ in run(made, state, 100, rng):  # noqa: B020, B007
            pass
        left.append(float((state.state.positions[:, 0, 1] != x[:, 0, 1]).double().mean()))
    assert left[1] > 3 * left[0] > 0


def test_it_goes_on_from_what_was_saved():
    made = kernel(width=5)
    state = made.init(at(draw(20, seeded(0))))
    rng = seeded(2)
    for state, _ in run(made, state, 7, rng):  # noqa: B020, B007
        pass
    again = made.restore(state.tensors())
    assert again.kept == state.kept
    a, b = (made.step(s, seeded(9))[0] for s in (state, again))
    assert torch.equal(a.state.positions, b.state.positions)


def test_one_torsion_cannot_be_parted():
    class One(Links):
        parts = 0

    with pytest.raises(ValueError, match="expected torsions of which some may stay, got a proposal of 0 parts"):
        kernel(One)


def test_every_evaluation_is_counted():
    class Counted(Links):
        evaluations = 0

        def _given(self, taus, kept):
            self.evaluations += len(taus)
            return super()._given(taus, kept)

        def placed(self, given, noise):
            self.evaluations += len(noise)
            return super().placed(given, noise)

        @property
        def asked(self):
            return self.evaluations

    made = kernel(Counted)
    state = made.init(at(draw(7, seeded(0))))
    made.proposal.evaluations = spent = 0
    for state, info in run(made, state, 9, seeded(1)):  # noqa: B020
        spent += info["evaluations"]
        np.testing.assert_allclose(state.energy, energy(state.state.positions))
    assert made.proposal.evaluations == spent
