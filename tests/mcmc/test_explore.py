"""Exploration: goes where the threshold lets it, keeps what is to be kept, and says that it is biased."""

import pytest
import torch

from timewarp.kernel import run
from timewarp.mcmc import Explore, Independence, Metropolis
from timewarp.state import State

from .toys import GAUSS, WELLS, Coupled, Fixed, invariance, ks, seeded


def test_says_that_it_is_biased_and_is():
    assert not Explore(WELLS, Coupled(), 100.0).exact
    assert Metropolis(WELLS, Coupled(), 1).exact
    assert Independence(WELLS, Fixed(), 1).exact
    assert invariance(Explore(WELLS, Coupled(), 100.0), WELLS) < 1e-6


def test_never_rises_by_more_than_the_threshold():
    kernel = Explore(WELLS, Coupled(), 0.7)
    chain = kernel.init(State.at(WELLS.draw(500, seeded(0)), 3, seeded(1)))
    rises = []
    for new, info in run(kernel, chain, 20, seeded(2)):
        rise = WELLS(new.state.positions) - WELLS(chain.state.positions)
        rises.append(rise[info["accepted"]])
        assert (rise[~info["accepted"]] == 0).all()
        torch.testing.assert_close(new.energy, WELLS(new.state.positions))
        assert info["evaluations"] == 500
        chain = new
    assert 0.6 < torch.cat(rises).max() <= 0.7


def test_with_any_rise_it_draws_from_the_proposal():
    kernel = Explore(GAUSS, Fixed(), 1e6)
    chain = kernel.init(State.at(GAUSS.draw(4000, seeded(0)), 3, seeded(1)))
    new, info = kernel.step(chain, seeded(2))
    assert info["accepted"].all()
    assert ks(new.state.positions / 1.3, "norm", 12000) > 0.01


def test_keeps_what_is_to_be_kept():
    def right_handed(x):
        return x[..., 0, 0] > 0

    kernel = Explore(WELLS, Coupled(), 100.0, keep=right_handed)
    x = WELLS.draw(300, seeded(0))
    x[:, 0, 0] = x[:, 0, 0].abs()
    for chain, _ in run(kernel, kernel.init(State.at(x, 3, seeded(1))), 20, seeded(2)):
        assert right_handed(chain.state.positions).all()
    x[7, 0, 0] = -1
    with pytest.raises(ValueError, match=r"expected initial positions that `keep` keeps, got others in chains \[7\]"):
        kernel.init(State.at(x, 3, seeded(1)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_entered(bad):
    kernel = Explore(lambda x: torch.where(x[..., 0, 0] > 0.5, bad, GAUSS(x)), Coupled(), 1e9)
    x = torch.zeros(500, 1, 3, dtype=torch.float64)
    for chain, info in run(kernel, kernel.init(State.at(x, 3, seeded(1))), 10, seeded(2)):
        assert (chain.state.positions[:, 0, 0] <= 0.5).all()
        assert info["accepted"].any()


def test_pure_and_independent():
    kernel = Explore(WELLS, Coupled(), 5.0)
    x = WELLS.draw(4, seeded(0))
    starts = (x, x, x.index_fill(0, torch.tensor([1]), 2.0))
    ends = [kernel.step(kernel.init(State.at(s)), seeded(7))[0].tensors() for s in starts]
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    same = (ends[0]["positions"] == ends[2]["positions"]).flatten(1).all(1)
    assert same.tolist() == [True, False, True, True]
    assert torch.equal(kernel.restore(ends[0]).energy, ends[0]["energy"])


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="expected a rise of at least 0 kT, got nan; 300 kJ/mol is 116 kT"):
        Explore(WELLS, Coupled(), float("nan"))
