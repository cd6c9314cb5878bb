"""Platforms are tried in a process of their own first, as a driver may end the one that it is in."""

import warnings

import pytest

from timewarp.md import platforms as module
from timewarp.md.platforms import platforms, survives, usable


@pytest.fixture(autouse=True)
def anew():
    survives.cache_clear()
    yield
    survives.cache_clear()


def openmm_that(does, folder, monkeypatch):
    """Other processes find an OpenMM that does this when a step is made on CUDA."""
    (folder / "openmm.py").write_text(f"import os, signal, sys, time\nif sys.argv[1:] == ['CUDA']:\n    {does}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(module, "platforms", lambda: ["Reference", "CPU", "CUDA"])


def test_what_works_survives_and_is_used():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert survives("Reference")
        assert survives("CPU")
        assert not survives("Abacus")
        assert set(usable()) <= set(platforms())
        assert {"Reference", "CPU"} <= set(usable())


def test_a_driver_that_ends_the_process_ends_another_and_is_left_out(tmp_path, monkeypatch):
    openmm_that("os.kill(os.getpid(), signal.SIGSEGV)", tmp_path, monkeypatch)
    with pytest.warns(UserWarning, match=r"platform CUDA is left out: it ends its process \(signal 11\)"):
        assert usable() == ["Reference", "CPU"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert usable() == ["Reference", "CPU"]  # said once, tried once


def test_a_driver_that_hangs_is_left_out(tmp_path, monkeypatch):
    openmm_that("time.sleep(60)", tmp_path, monkeypatch)
    monkeypatch.setattr(module, "LONGEST", 0.5)
    with pytest.warns(UserWarning, match="platform CUDA is left out: it came to no end"):
        assert usable() == ["Reference", "CPU"]


def test_a_platform_without_its_hardware_is_left_out_in_silence(tmp_path, monkeypatch):
    openmm_that("raise RuntimeError('no device')", tmp_path, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert usable() == ["Reference", "CPU"]
