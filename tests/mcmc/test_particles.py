"""Several paths at the same torsions: their mean weight is unbiased both ways, and the chain on it is exact."""

import math
from dataclasses import dataclass

import pytest
import torch

from timewarp.kernel import run
from timewarp.mcmc import Annealed

from .bent import BENT, Straight
from .test_annealed import at, at_once, backward, crooks, forward, invariance, with_nudges, z_score  # noqa: F401
from .toys import seeded


def kernel(particles=4, stages=0, width=5, kind=Annealed, energy=BENT):
    return kind(energy, Straight(energy), stages, width, 0.4 * math.pi, particles)


class Lonely(Annealed):
    """The present has its own path alone."""

    def backward(self, given, noise, rng):
        return self._path_to(given, noise, rng)


class Doubled(Annealed):
    """The present's others are one more than they are."""

    def backward(self, given, noise, rng):
        others = self.paths(given, self.particles, rng)[2]
        return others.logsumexp(0) - math.log(self.particles)


@dataclass(frozen=True)
class Blind(Annealed):
    """The proposal is the first path, whatever it weighs."""

    def forward(self, given, rng):
        positions, energy, log_weight = self.paths(given, self.particles, rng)
        return positions[0], energy[0], log_weight.logsumexp(0) - math.log(self.particles)


@pytest.mark.parametrize(("particles", "stages"), [(2, 0), (5, 0), (3, 2)])
def test_mean_weights_are_unbiased_both_ways(particles, stages):
    made = kernel(particles, stages)
    assert z_score(forward(made)) < 3
    assert z_score(-backward(made)) < 3
    assert crooks(made) < 3


@pytest.mark.parametrize("wrong", [Lonely, Doubled])
def test_unbiased_fails_with_a_wrong_way_back(wrong):
    assert crooks(kernel(kind=wrong)) > 6


@pytest.mark.parametrize(("particles", "stages"), [(4, 0), (3, 2)])
def test_leaves_the_target_invariant(particles, stages):
    made = kernel(particles, stages)
    assert invariance(made) > 0.01
    assert invariance(with_nudges(kernel(particles, stages, 40)), 40) > 0.01


@pytest.mark.parametrize("wrong", [Lonely, Blind])
def test_invariance_fails_when_it_is_broken(wrong):
    made = kernel(kind=wrong, width=40)
    assert min(invariance(made), invariance(with_nudges(made), 80, 40_000)) < 1e-5


def test_particles_narrow_the_weights_and_lift_the_acceptance():
    spread, accepted = [], []
    for particles in (1, 4, 16):
        made = kernel(particles)
        spread.append(float(forward(made, 10_000).std()))
        infos = [info for _, info in run(made, made.init(at(BENT.draw(2000, seeded(0)))), 10, seeded(1))]
        accepted.append(float(torch.stack([info["accepted"].float().mean() for info in infos]).mean()))
    assert spread[0] > spread[1] > spread[2]
    assert accepted[0] < accepted[1] < accepted[2]


def test_every_evaluation_is_counted():
    made = kernel(3, 2, 4)
    queue = made.init(at(BENT.draw(7, seeded(0))))
    made.proposal.evaluations = spent = 0
    for queue, info in run(made, queue, 9, seeded(1)):  # noqa: B020
        spent += info["evaluations"]
        torch.testing.assert_close(queue.energy, BENT(queue.state.positions))
    assert made.proposal.evaluations == spent


def test_a_torsion_whose_paths_all_clash_is_refused():
    def energy(x):
        return torch.where(x[..., 0, 1] > -0.5, torch.inf, BENT(x))

    start = BENT.draw(4000, seeded(4))
    start = start[start[:, 0, 1] < -0.5]
    made = kernel(2, energy=energy)
    for state, _ in run(made, made.init(at(start)), 10, seeded(5)):  # noqa: B007
        pass
    assert (state.state.positions[:, 0, 1] <= -0.5).all()


def test_at_least_one():
    with pytest.raises(ValueError, match=r"at least 1 particle, got 0, 5, .*, 0$"):
        kernel(0)
