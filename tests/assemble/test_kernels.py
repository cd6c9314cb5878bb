"""How cores are used, and how the steps of the flow are shared out."""

import pytest
import torch

from timewarp.assemble import kernels
from timewarp.assemble.kernels import undivided
from timewarp.mcmc.cycle import shared


@pytest.fixture
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three")
def test_operations_have_one_core_within_and_their_own_afterwards():
    with undivided() as cores:
        assert (cores, torch.get_num_threads()) == (3, 1)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three")
def test_also_when_something_fails():
    with pytest.raises(KeyError), undivided():
        raise KeyError("broken")
    assert torch.get_num_threads() == 3


def test_parts_are_drawn_the_more_the_less_of_whole_proposals_is_taken_up():
    shares = []
    for acceptance in (0.0, 0.3, 0.7, 0.95):
        weights = kernels.parted((0.8, 0.15, 0.05), acceptance)
        assert sum(weights) == pytest.approx(1)
        assert weights[3:] == (0.15, 0.05)
        assert weights[1] == weights[2]
        blocks = shared(kernels.length(weights), weights)
        assert blocks[0] > sum(blocks[1:3])
        assert blocks[1] == blocks[2] == (kernels.BLOCK if acceptance < 0.9 else 1)
        shares.append(weights[1])
    assert shares == sorted(shares, reverse=True)
    assert kernels.length((0.8, 0.15, 0.05)) == kernels.SHORTEST
