"""Chains that agree are told from chains that do not, by halves and by starts."""

import math

import pytest
import torch

from timewarp.assemble.mixing import mixing

START = [0] * 20 + [1] * 20


def chains(seed=0, count=40, frames=30):
    """Independent draws: two torsions with three wells each, and an energy."""
    rng = torch.Generator().manual_seed(seed)
    wells = torch.tensor([0.2, 0.7, 0.1]).multinomial(count * frames * 2, True, generator=rng).view(count, frames, 2)
    torsions = 2 * math.pi / 3 * wells + 0.2 * torch.randn(count, frames, 2, generator=rng)
    return torch.remainder(torsions, 2 * math.pi) - math.pi, torch.randn(count, frames, generator=rng)


def test_independent_draws_agree():
    for seed in range(5):
        found = mixing(*chains(seed), START)
        assert found["agree"]
        assert found["halves"] < 0.1
        assert found["starts"] < 0.1
        assert found["rhat"] < 1.05
        assert found["ess"] > 500


def test_chains_that_drift_differ_between_halves():
    torsions, energy = chains()
    torsions[:, 15:, 0] = torch.where(torsions[:, 15:, 0] < -2, torsions[:, 15:, 0] + 2 * math.pi / 3, 0.0)
    found = mixing(torsions, energy, START)
    assert not found["agree"]
    assert found["halves"] > 0.15
    assert found["halves_error"] > 4.5
    assert found["starts"] < 0.1


def test_chains_that_remember_their_start_differ_between_starts():
    torsions, energy = chains()
    first = torsions[:20, :, 1]
    torsions[:20, :, 1] = torch.where((first + math.pi / 3).abs() < 1, first + 2 * math.pi / 3, first)
    found = mixing(torsions, energy, START)
    assert not found["agree"]
    assert found["starts"] > 0.3
    assert found["halves"] < 0.1


def test_chains_that_are_each_in_a_well_of_their_own_do_not_agree():
    torsions, energy = chains(frames=1)
    found = mixing(torsions.expand(-1, 30, -1), energy + 0.1 * torch.randn(40, 30), START)
    assert (found["halves"], found["agree"]) == (0.0, False)
    assert found["rhat"] > 2


@pytest.mark.parametrize(("count", "frames"), [(1, 30), (2, 30), (40, 1), (40, 4)])
def test_few_chains_or_frames_do_not_agree(count, frames):
    found = mixing(*chains(count=count, frames=frames), START[:count])
    assert found["agree"] is False


def test_without_torsions_the_energy_decides():
    torsions, energy = chains()
    assert mixing(torsions[..., :0], energy, START)["agree"]
    assert not mixing(torsions[..., :0], energy + torch.arange(40.0)[:, None], START)["agree"]
