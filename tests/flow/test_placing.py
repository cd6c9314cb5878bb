"""The kernel places atoms where the loops do. Skipped where there is neither a GPU nor TRITON_INTERPRET=1."""

import importlib
import os
from importlib.util import find_spec

import pytest
import torch

from timewarp.flow import chart as charts
from timewarp.flow import loops, placing

from .molecules import chart_of
from .test_loops import internals

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.*")  # of lanes beyond the last configuration
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="the kernel needs triton, and a GPU or TRITON_INTERPRET=1",
)


@pytest.fixture(autouse=True)
def numpy_of_today(monkeypatch):
    """The interpreter of Triton 3.6 takes the bounds of a loop as int of arrays of one, which numpy 2.4 refuses."""
    if INTERPRETED and find_spec("triton"):
        interpreter = importlib.import_module("triton.runtime.interpreter")
        patch = interpreter._patch_lang_tensor

        def patched(tensor, scope):
            patch(tensor, scope)
            scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

        monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


def by_kernel(chart, internal):
    there = chart.to(DEVICE)
    return placing.cartesian(internal.to(DEVICE), there.refs, there.tree.order).cpu()


def by_loops(chart, internal):
    return loops.cartesian(internal, chart.refs, chart.tree.order)


@needs_triton
@pytest.mark.parametrize("sequence", ["AA", "GP", "CYX-CYX"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
@pytest.mark.parametrize("batch", [(1,), (3,), (130,), (), (2, 0), (2, 1, 3)])
def test_positions_are_those_of_the_loops(sequence, dtype, close, batch):
    chart = chart_of(sequence)
    internal = internals(chart, *batch, dtype=dtype)
    assert placing.apt(internal.to(DEVICE))
    found = by_kernel(chart, internal)
    assert found.shape == internal.shape
    assert found.dtype == dtype
    assert not found.numel() or (found - by_loops(chart, internal)).abs().max() < close


@needs_triton
def test_what_is_not_contiguous_is_read_right():
    chart = chart_of("AA")
    internal = internals(chart, 6)
    assert (by_kernel(chart, internal[::2]) - by_loops(chart, internal)[::2]).abs().max() < 1e-12


@needs_triton
def test_one_that_is_not_finite_harms_no_other():
    chart = chart_of("AA")
    internal = internals(chart, 4)
    whole = by_kernel(chart, internal)
    internal[1, 6, 0], internal[2, 5, 2] = torch.inf, torch.nan
    found = by_kernel(chart, internal)
    assert torch.equal(found[[0, 3]], whole[[0, 3]])
    assert not found[1].isfinite().all()
    assert not found[2].isfinite().all()


@needs_triton
def test_two_charts_do_not_share_a_table():
    for sequence in ["AA", "GP", "AA"]:
        chart = chart_of(sequence)
        internal = internals(chart, 2)
        assert (by_kernel(chart, internal) - by_loops(chart, internal)).abs().max() < 1e-12


@needs_triton
def test_the_chart_asks_the_kernel_where_the_loops_are_not_apt(monkeypatch):
    chart, asked = chart_of("AA"), []
    internal = internals(chart, 3)
    there = chart.to(DEVICE)
    monkeypatch.setattr(charts, "apt", lambda *tensors: False)
    kernel = placing.cartesian
    monkeypatch.setattr(placing, "cartesian", lambda *given: asked.append(1) or kernel(*given))
    found = there.cartesian(internal.to(DEVICE))
    assert asked == [1]
    assert (found.cpu() - by_loops(chart, internal)).abs().max() < 1e-12
    assert there.cartesian(internal.to(DEVICE).requires_grad_()).requires_grad  # this one by torch
    assert asked == [1]


def test_a_cpu_a_gradient_or_two_precisions_are_left_to_others(monkeypatch):
    x = torch.zeros(2, 5, 3)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not placing.apt(x)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(placing, "_installed", lambda: True)
    assert placing.apt(x, x)
    assert not placing.apt(x, x.double())
    assert not placing.apt(x.half())
    assert not placing.apt(torch.nn.Parameter(x))
    x.requires_grad_()
    assert not placing.apt(x)
    with torch.no_grad():
        assert placing.apt(x)
    monkeypatch.setattr(placing, "_installed", lambda: False)
    assert not placing.apt(x.detach())
