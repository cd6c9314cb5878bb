"""Loops become machine code for both precisions, also where it cannot be kept."""

import importlib

import numpy as np
import pytest

from timewarp import machine


def double(x, times, found):
    for k in range(len(x)):
        found[k] = x[k] * times[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kept", [True, False])
def test_it_runs_wherever_it_is_kept(dtype, kept, monkeypatch):
    real = machine.njit

    def nowhere(*args, **how):
        if how.pop("cache", False):
            raise RuntimeError("no locator available")
        return real(*args, **how)

    if not kept:
        monkeypatch.setattr(machine, "njit", nowhere)
    loop = machine.machine_code("1x", "1i", "1x")(double)
    x = np.array([1.0, np.nan, np.inf], dtype=dtype)
    found = np.empty_like(x)
    loop(x, np.array([3]), found)
    np.testing.assert_array_equal(found, [3.0, np.nan, np.inf])


def test_other_arrays_are_refused():
    loop = machine.machine_code("1x", "1i", "1x")(double)
    with pytest.raises(TypeError):
        loop(np.zeros(3, dtype=np.float16), np.array([3]), np.zeros(3))


@pytest.mark.parametrize("name", ["loops", "moments", "swings"])
def test_no_loop_calls_another(name):
    """What is kept on disk is made anew when the file of a loop changes, not when that of one it calls does."""
    module = importlib.import_module(f"timewarp.flow.{name}")
    loops = [value for value in vars(module).values() if hasattr(value, "py_func")]
    own = [loop for loop in loops if loop.py_func.__module__ == module.__name__]
    assert own
    for loop in own:
        called = [loop.py_func.__globals__.get(word) for word in loop.py_func.__code__.co_names]
        assert not any(hasattr(value, "py_func") for value in called), loop
