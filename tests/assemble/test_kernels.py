"""How cores are used: each operation on one, proposals side by side."""

import pytest
import torch

from timewarp.assemble.kernels import undivided


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
