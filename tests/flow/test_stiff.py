"""Laws of the stiff coordinates' density: a Gaussian that integrates to one, untrained the harmonic one."""

import pytest
import torch

from timewarp.flow.internal import Internal
from timewarp.flow.stiff import gaussian

from .molecules import SMALL, chart_of, flow_of, molecule_of, tokens_of

SEQUENCE = "AA"


def inputs(dtype=torch.float64, batch=5, seed=0):
    molecule, chart = molecule_of(SEQUENCE), chart_of(SEQUENCE)
    tokens = tokens_of(molecule, chart, dtype)
    rng = torch.Generator().manual_seed(seed)
    turns = torch.randn(batch, chart.atoms, generator=rng, dtype=dtype)
    mean = torch.where(chart.stiff, torch.randn(batch, chart.atoms, 3, generator=rng, dtype=dtype), 0.0)
    return tokens, turns, mean


def test_it_integrates_to_one_over_the_real_coordinates():
    """Over a plane of two real coordinates beside one that is not; the mask leaves that one out."""
    line = torch.linspace(-9, 9, 401, dtype=torch.float64)
    a, b = torch.meshgrid(line, line, indexing="ij")
    noise = torch.stack([a, torch.full_like(a, 3.0), b], -1).reshape(-1, 1, 3)
    shift, log_scale = torch.tensor([[[0.4, 9.0, -0.7]]]).double(), torch.tensor([[[0.3, 9.0, -0.5]]]).double()
    real = torch.tensor([[True, False, True]])
    total = gaussian(noise, shift, log_scale, real).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=1e-9)


def test_its_moments_are_the_shift_and_the_scale():
    line = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    shift, log_scale = torch.tensor(0.4).double(), torch.tensor(0.3).double()
    p = gaussian(line[:, None, None], shift, log_scale, torch.tensor([[True]])).exp() * (line[1] - line[0])
    assert (p * line).sum().item() == pytest.approx(0.4, abs=1e-6)
    assert ((p * (line - 0.4) ** 2).sum().sqrt()).item() == pytest.approx(torch.exp(log_scale).item(), abs=1e-6)


@torch.no_grad()
def test_untrained_it_adds_nothing():
    torch.manual_seed(0)
    flow = Internal(SMALL).double()
    tokens, *given = inputs()
    shift, scale = flow.stiff(tokens, flow.encoder(tokens), *given)
    assert not shift.any()
    assert not scale.any()


@torch.no_grad()
def test_only_stiff_coordinates_move_and_scales_are_bounded():
    flow = flow_of(torch.float64, spread=2.0)
    tokens, *given = inputs()
    shift, scale = flow.stiff(tokens, flow.encoder(tokens), *given)
    assert shift[:, tokens.stiff].abs().min() > 0
    assert not shift[:, ~tokens.stiff].any()
    assert not scale[:, ~tokens.stiff].any()
    assert scale.abs().max() <= 0.7


@torch.no_grad()
def test_the_geometry_and_the_torsions_are_heard():
    flow = flow_of(torch.float64, spread=0.5)
    tokens, turns, mean = inputs()
    atoms = flow.encoder(tokens)
    one = flow.stiff(tokens, atoms, turns, mean)[0]
    for other in ((turns + 1, mean), (turns, mean * 2)):
        assert (flow.stiff(tokens, atoms, *other)[0] - one).abs().max() > 1e-4
