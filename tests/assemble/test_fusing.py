"""Compiling in the middle of a run changes no law and no byte: it comes at a step, not at a time."""

from importlib import import_module

import torch

from timewarp.assemble import fusing
from timewarp.assemble.data import loader
from timewarp.assemble.fusing import fuse, worth_fusing
from timewarp.assemble.peptide import Peptide
from timewarp.flow.growth import Growth
from timewarp.resources import peptide_path
from timewarp.settings import SampleSettings

sampling = import_module("timewarp.assemble.sample")  # the module: the package has a function of that name


def silent(*_):
    return None


def run(out, monkeypatch, stop=lambda: False, resume=False):
    monkeypatch.setattr(sampling, "AFTER", 12)
    monkeypatch.setattr(fusing, "WORTH_STEPS", 1)
    settings = SampleSettings(
        pdb=peptide_path("AA"), out=out, steps=30, chains=2, width=4, warm_up=0, seed=3, resume=resume
    )
    sampling.sample(settings, silent, stop)
    return {p.name: p.read_bytes() for p in (*out.glob("*.dcd"), out / "log.csv")}


def test_a_run_that_is_stopped_behind_the_switch_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    fused = []
    monkeypatch.setattr(sampling, "fuse", lambda *both: fused.append(1) or fuse(*both))
    whole = run(tmp_path / "one", monkeypatch)
    assert len(fused) == 1
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 20

    run(tmp_path / "two", monkeypatch, stop)
    assert run(tmp_path / "two", monkeypatch, resume=True) == whole
    assert len(fused) == 3  # once before the stop, once when it went on


def test_compiled_the_energy_and_the_growth_are_the_same():
    peptide = Peptide.of(loader("GS")(), 310.0)
    growth = Growth(peptide.molecule, peptide.chart, 310.0)
    tau = 6 * torch.rand(40, peptide.chart.torsions, generator=torch.Generator().manual_seed(0)) - 3
    x = peptide.chart.inverse(tau, peptide.response(tau))[0]
    before, curves = peptide.potential(x), growth.curves(tau)
    peptide.potential.compiled = True
    growth.fuse()
    torch.testing.assert_close(peptide.potential(x), before, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(growth.curves(tau), curves, rtol=1e-3, atol=1e-3)


def test_short_runs_are_left_alone():
    assert worth_fusing(None, 60.0)
    assert worth_fusing(10_000, None)
    assert not worth_fusing(None, 20.0)
    assert not worth_fusing(600, None)
