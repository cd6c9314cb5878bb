"""Kernels that take turns in blocks, in an order that no state decides; their laws are in test_mixture.py."""

from itertools import islice

import pytest
import torch

from timewarp.kernel import run
from timewarp.mcmc import Cycle, Hamiltonian, Independence, Metropolis, Propose
from timewarp.mcmc.cycle import shared
from timewarp.state import State

from .test_propose import step_about
from .toys import WELLS, Coupled, Fixed, seeded


def everything(target, length=9):
    kernels = (
        Independence(target, Fixed(), 5),
        Metropolis(target, Coupled(), 1),
        Hamiltonian(target, torch.ones(1), 0.4, 3),
        Propose(target, step_about),
    )
    return Cycle(kernels, (3.0, 1.0, 1.0, 2.0), length)


def test_each_kernel_has_one_block_of_a_round():
    cycle = everything(WELLS, 14)
    first = cycle.init(State.at(WELLS.draw(3, seeded(0)), 3, seeded(1)))
    picked = [info["kernel"] for _, info in islice(run(cycle, first, 28, seeded(2)), 28)]
    assert picked == 2 * [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert cycle.blocks == (6, 2, 2, 4)


def test_shares_are_of_the_weights_and_none_is_left_out():
    assert shared(60, (0.6, 0.2, 0.2)) == (36, 12, 12)
    assert shared(60, (6, 3, 1)) == (36, 18, 6)
    assert shared(10, (0.98, 0.01, 0.01)) == (8, 1, 1)
    assert shared(2, (0.2, 0.4, 0.4)) == (1, 1, 1)


@pytest.mark.parametrize("at", [1, 7, 9, 22])
def test_a_cycle_that_is_restored_goes_on_where_it_was(at):
    cycle = everything(WELLS)
    rng = seeded(4)
    steps = run(cycle, cycle.init(State.at(WELLS.draw(5, seeded(0)), 3, seeded(1))), 40, rng)
    parts = list(islice(steps, at))[-1][0]
    saved, state = {k: v.clone() for k, v in parts.tensors().items()}, rng.get_state()
    rest = [(p.tensors(), info["kernel"]) for p, info in steps]
    again = [
        (p.tensors(), info["kernel"])
        for p, info in run(cycle, cycle.restore(saved), 40 - at, seeded(0).set_state(state))
    ]
    assert [kernel for _, kernel in rest] == [kernel for _, kernel in again]
    for name, value in rest[-1][0].items():
        torch.testing.assert_close(value, again[-1][0][name], rtol=0, atol=0, equal_nan=True)
