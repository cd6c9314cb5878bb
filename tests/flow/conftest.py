"""Molecules, charts and flows are functions of `molecules`, which keeps what they make for the session."""

import pytest
import torch


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(1)
