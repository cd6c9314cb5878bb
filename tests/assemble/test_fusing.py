"""What a run decides about compiling it keeps, so that what goes on after a stop has the same bytes."""

import json
import sys
from importlib import import_module

import pytest
import torch

from timewarp.assemble import fusing
from timewarp.assemble.data import loader
from timewarp.assemble.peptide import Peptide
from timewarp.energy import Potential, compiled
from timewarp.flow.growth import Growth
from timewarp.resources import peptide_path
from timewarp.settings import AdaptSettings, SampleSettings

# the functions of the same names hide these modules
adapting, sampling = (import_module(f"timewarp.assemble.{name}") for name in ("adapt", "sample"))


def silent(*_):
    return None


@pytest.fixture
def started(monkeypatch):
    """The commands of processes that would have been left behind."""
    commands = []
    monkeypatch.setattr(fusing.subprocess, "Popen", lambda command, **_: commands.append(command))
    return commands


def run(out, monkeypatch, stop=lambda: False, resume=False):
    monkeypatch.setattr(fusing, "WORTH_STEPS", 1)
    monkeypatch.setattr(fusing, "LOADED_STEPS", 1)
    settings = SampleSettings(
        pdb=peptide_path("AA"), out=out, steps=30, chains=2, width=4, warm_up=0, seed=3, resume=resume
    )
    sampling.sample(settings, silent, stop)
    report = json.loads((out / "report.json").read_text())
    return {p.name: p.read_bytes() for p in (*out.glob("*.dcd"), out / "log.csv")}, report["notices"]


def test_a_run_that_began_uncompiled_goes_on_so_when_the_compiled_energy_has_come(
    tmp_path, monkeypatch, few_conformers, started
):
    asked = []
    monkeypatch.setattr(fusing, "ready", lambda _: False)
    whole, notices = run(tmp_path / "one", monkeypatch)
    assert fusing.NOTICE in notices
    assert len(started) == 1

    def stop():
        asked.append(1)
        return len(asked) > 20

    run(tmp_path / "two", monkeypatch, stop)
    monkeypatch.setattr(fusing, "ready", lambda _: True)
    monkeypatch.setattr("timewarp.energy.potential.fused", lambda *_: pytest.fail("it was compiled"))
    assert run(tmp_path / "two", monkeypatch, resume=True)[0] == whole


@pytest.mark.parametrize(("seconds", "limit"), [(None, 300.0), (20.0, 320.0)])
def test_minutes_of_adaptation_count_in_what_compiling_is_worth(seconds, limit, tmp_path, monkeypatch):
    class Built(Exception):
        pass

    def build(*_, potential, **__):
        raise Built(potential.compiled)

    limits, out = [], tmp_path / "run"
    if seconds is None:
        module, work = adapting, lambda: adapting.adapt(AdaptSettings(pdb=peptide_path("AA"), out=out), silent, silent)
    else:
        settings = SampleSettings(pdb=peptide_path("AA"), out=out, seconds=seconds, adapt=5.0)
        module, work = sampling, lambda: sampling.sample(settings, silent, silent)
    monkeypatch.setattr(module, "fused", lambda _, *asked: limits.append(asked) or (True, ()))
    monkeypatch.setattr(module.Peptide, "of", build)
    with pytest.raises(Built) as built:
        work()
    assert (limits, built.value.args) == ([(None, limit)], (True,))


def test_the_process_that_is_left_behind_compiles_what_the_run_would_have_needed(monkeypatch, started):
    potential, kinds = Potential(loader("GG")()), []
    monkeypatch.setattr(fusing, "ready", lambda _: False)
    chosen, notices = fusing.fused(potential, None, 60.0)
    assert (chosen, notices) == (False, (fusing.NOTICE,))
    (command,) = started
    monkeypatch.setattr(fusing, "made", kinds.append)
    monkeypatch.setattr(sys, "argv", ["-c", command[-1]])
    exec(command[command.index("-c") + 1], {})
    (kind,) = kinds
    assert tuple(kind[:2]) == compiled.needed(potential.tables)[:2]
    assert tuple(kind[2]) == compiled.needed(potential.tables)[2]


@pytest.mark.parametrize(
    ("there", "steps", "seconds", "chosen", "waited"),
    [
        (True, None, 60.0, True, False),
        (True, 10_000, None, True, False),
        (True, None, 20.0, True, False),
        (True, None, 3.0, False, False),
        (True, 600, None, False, False),
        (False, None, 60.0, False, False),
        (False, None, 3600.0, True, True),
        (False, 10_000_000, None, True, True),
    ],
)
def test_a_run_takes_what_is_there_and_a_long_one_waits(there, steps, seconds, chosen, waited, monkeypatch, started):
    waits = []
    monkeypatch.setattr(fusing, "ready", lambda _: there)
    monkeypatch.setattr(fusing, "prepare", waits.append)
    assert fusing.fused(Potential(loader("GG")()), steps, seconds)[0] is chosen
    assert bool(waits) is waited
    assert not fusing.fused(lambda x: x, steps, seconds)[0]  # somebody else's energy


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
