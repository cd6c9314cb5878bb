"""What a run decides about compiling it keeps, so that what goes on after a stop has the same bytes."""

import json
import subprocess
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


class Compiler(subprocess.Popen):
    """In place of a process that compiles: it ends when it is asked for the third time."""

    def __init__(self, command, **options):
        self._child_created = False
        self.command, self.options, self.asked = command, options, 0
        type(self).started.append(self)

    def poll(self):
        self.asked += 1
        return 0 if self.asked > 2 else None


@pytest.fixture
def started(monkeypatch):
    """The processes that would have compiled."""
    Compiler.started = []
    monkeypatch.setattr(fusing.subprocess, "Popen", Compiler)
    return Compiler.started


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
    monkeypatch.setattr(module, "fused", lambda _, *asked: limits.append(asked[:2]) or (True, ()))
    monkeypatch.setattr(module.Peptide, "of", build)
    with pytest.raises(Built) as built:
        work()
    assert (limits, built.value.args) == ([(None, limit)], (True,))


def test_the_process_that_is_left_behind_compiles_what_the_run_would_have_needed(monkeypatch, started):
    potential, kinds = Potential(loader("GG")()), []
    monkeypatch.setattr(fusing, "ready", lambda _: False)
    chosen, notices = fusing.fused(potential, None, 60.0, silent, lambda: False)
    assert (chosen, notices) == (False, (fusing.NOTICE,))
    command = started[0].command
    assert (len(started), started[0].asked, command[0]) == (1, 0, "nice")
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
    monkeypatch.setattr(fusing, "ready", lambda _: there)
    assert fusing.fused(Potential(loader("GG")()), steps, seconds, silent, lambda: False)[0] is chosen
    assert any(process.asked > 2 for process in started) is waited
    assert not fusing.fused(lambda x: x, steps, seconds, silent, lambda: False)[0]  # somebody else's energy


def test_a_run_that_is_stopped_while_it_waits_ends_at_once_and_decides_when_it_goes_on(tmp_path, monkeypatch, started):
    class Decided(Exception):
        pass

    def decide(*_):
        raise Decided

    said = []
    monkeypatch.setattr(fusing, "ready", lambda _: False)
    monkeypatch.setattr(fusing, "LONG_STEPS", 1)
    monkeypatch.setattr(Compiler, "poll", lambda _: None)  # it takes for ever
    decided, notices = fusing.fused(
        Potential(loader("GG")()), 10_000, None, lambda _, what: said.append(what), lambda: len(said) > 0
    )
    assert (decided, notices, said) == (None, (fusing.NOTICE,), ["compiling the energy, once for this machine"])
    assert started[0].options["start_new_session"]  # Ctrl-C reaches this process alone
    assert started[0].command[0] == sys.executable  # it is waited for, and not put behind others
    run(tmp_path / "run", monkeypatch, lambda: True)
    monkeypatch.setattr(sampling, "fused", decide)
    with pytest.raises(Decided):
        run(tmp_path / "run", monkeypatch, resume=True)


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
