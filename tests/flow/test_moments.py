"""Sums over bodies give the Hessian that the product of rates and second derivatives gives."""

import pytest
import torch

from timewarp.flow import curvature as module
from timewarp.flow.curvature import Curvature
from timewarp.flow.moments import roots_of

from .molecules import chart_of, molecule_of
from .test_response import conformers


def both(made, x, monkeypatch):
    """(by moments, by torch)."""
    assert made.rigid
    found = made(x)
    with monkeypatch.context() as patch:
        patch.setattr(module, "apt", lambda *_: False)
        return found, made(x)


def placed(sequence, count=3, size=0.3):
    chart = chart_of(sequence)
    z = size * torch.randn(count, chart.stiffs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return chart.inverse(conformers(count, sequence=sequence), z)[0]


@pytest.mark.parametrize("sequence", ["AA", "HS", "ACE-LYS-NME", "HIS-DSN", "CYX-CYX", "RW", "GP", "PS", "APS", "PP"])
def test_it_is_that_of_torch(sequence, monkeypatch):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    found, there = both(Curvature(molecule, chart, 310.0), placed(sequence), monkeypatch)
    torch.testing.assert_close(found, there, rtol=1e-9, atol=1e-9 * there.abs().median())
    assert torch.equal(found, found.mT)


def test_single_precision_is_near(monkeypatch):
    molecule, chart = molecule_of("HS"), chart_of("HS", torch.float32)
    x = placed("HS")
    found = Curvature(molecule, chart, 310.0)(x.float())
    exact = Curvature(molecule, chart_of("HS"), 310.0)(x)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def test_each_configuration_is_alone():
    """Whatever else is in the batch, to the last bit: a present has to find the law that it was drawn with."""
    made, x = Curvature(molecule_of("HS"), chart_of("HS"), 310.0), placed("HS", 5)
    whole = made(x)
    for k in range(5):
        assert torch.equal(made(x[k : k + 1])[0], whole[k])
    assert made(x[:0]).shape == (0, len(made.rows), len(made.rows))


def test_parts_of_a_body_are_itself_and_those_that_follow_its_dihedral():
    chart = chart_of("AA")
    made = Curvature(molecule_of("AA"), chart, 310.0)
    roots = roots_of(chart.leads, torch.stack([made.place, made.kind]))
    for place, kind, row, body in zip(made.place, made.kind, roots.tolist(), made.body, strict=True):
        assert row[0] == place
        parts = sum(chart.below[0, k] for k in row if k >= 0)
        assert torch.equal(parts.double(), body.double())
        assert (kind == 2) or row[1:] == [-1] * len(row[1:])
