"""The loops over atoms give what torch gives level by level, and leave it to torch where a gradient is asked for."""

import threading

import pytest
import torch

from timewarp.flow import loops
from timewarp.flow.torque import torques
from timewarp.machine import apt

from .molecules import chart_of

PEPTIDES = ["AA", "GP", "HM", "ACE-ALA-NME", "CYX-CYX", "RYHM"]


def internals(chart, *batch, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    torsions = torch.rand(*batch, chart.torsions, generator=rng, dtype=torch.float64) * 6.28 - 3.14
    stiff = torch.randn(*batch, chart.stiffs, generator=rng, dtype=torch.float64)
    return chart.join(torsions, stiff).to(dtype)


def by_torch(chart, internal):
    return chart.cartesian(internal.clone().requires_grad_()).detach()


@pytest.mark.parametrize("sequence", PEPTIDES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
def test_positions_are_those_of_torch(sequence, dtype, close):
    chart = chart_of(sequence)
    internal = internals(chart, 2, 5, dtype=dtype)
    assert apt(internal)
    assert (chart.cartesian(internal) - by_torch(chart, internal)).abs().max() < close
    assert chart.cartesian(internal[:, :0]).shape == (2, 0, chart.atoms, 3)


@pytest.mark.parametrize("sequence", PEPTIDES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_torques_are_those_of_torch(sequence, dtype, close):
    chart = chart_of(sequence)
    x = chart.cartesian(internals(chart, 2, 4, dtype=dtype))
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    order = chart.tree.order
    found = loops.torques(x, gradient, chart.refs, chart.leads, order)
    there = torques(x[..., order, :], gradient[..., order, :], chart.refs, chart.below)
    real = chart.free | chart.stiff
    assert (found - there)[..., real].abs().max() < close


def test_torques_are_what_autograd_says():
    """Of a function of positions, through the placement of every atom, by torch alone."""
    chart = chart_of("HM")
    internal = internals(chart, 3).requires_grad_()
    weight = torch.randn(chart.atoms, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = chart.cartesian(internal)
    (slope,) = torch.autograd.grad((weight * x.square()).sum(), internal)
    found = loops.torques(x.detach(), 2 * weight * x.detach(), chart.refs, chart.leads, chart.tree.order)
    real = (chart.free | chart.stiff).clone()
    assert (found - slope)[..., real].abs().max() < 1e-9


def test_one_that_is_not_finite_harms_no_other():
    chart = chart_of("AA")
    internal = internals(chart, 4)
    whole = chart.cartesian(internal)
    internal[1, 6, 0], internal[2, 5, 2] = torch.inf, torch.nan
    found = chart.cartesian(internal)
    assert torch.equal(found[[0, 3]], whole[[0, 3]])
    assert not found[1].isfinite().all()
    assert not found[2].isfinite().all()
    slope = torch.ones_like(whole)
    slope[1] = torch.nan
    rates = loops.torques(whole, slope, chart.refs, chart.leads, chart.tree.order)
    assert rates[[0, 2, 3]].isfinite().all()
    assert not rates[1].isfinite().any(0).all()


def test_a_gradient_or_two_precisions_are_left_to_torch():
    x = torch.zeros(2, 5, 3)
    assert apt(x, x)
    assert not apt(x, x.double())
    assert not apt(x.half())
    x.requires_grad_()
    assert not apt(x)
    with torch.no_grad():
        assert apt(x)


def test_what_is_not_contiguous_is_read_right():
    chart = chart_of("AA")
    internal = internals(chart, 6)
    assert torch.equal(chart.cartesian(internal[::2]), chart.cartesian(internal)[::2])
    x = chart.cartesian(internal)
    rates = loops.torques(x[::2], x[::2].flip(0), chart.refs, chart.leads, chart.tree.order)
    assert torch.equal(rates[0], loops.torques(x[:1], x[4:5], chart.refs, chart.leads, chart.tree.order)[0])


def test_threads_do_not_disturb_one_another():
    chart = chart_of("HM")
    parts = [internals(chart, 200, seed=k) for k in range(4)]
    alone, found = [chart.cartesian(part) for part in parts], [[] for _ in parts]

    def work(k):
        found[k] = [chart.cartesian(parts[k]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, whole) for whole, each in zip(alone, found, strict=True) for one in each)
