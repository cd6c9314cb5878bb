"""`timewarp md`: the files that it leaves, and that stopping it leaves no trace in them."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import mdtraj
import pytest
import torch

from timewarp.assemble import md, reporting
from timewarp.claim import DirectoryRefused
from timewarp.md import reference
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.system import InputError, prepare, prepare_sequence, write_pdb
from timewarp.output import RunDirectory
from timewarp.settings import Device, MDSettings, Protocol

KEYS = {
    "exact", "peptide", "atoms", "temperature", "checkpoint", "seed", "chains", "steps", "moves_proposed",
    "moves_accepted", "acceptance", "energy_evaluations", "seconds", "ess", "rhat", "ess_per_second", "verdict",
    "reasons",
}  # fmt: skip


@pytest.fixture(scope="module")
def pdb(tmp_path_factory):
    path = tmp_path_factory.mktemp("input") / "AG.pdb"
    made = prepare_sequence("AG")
    write_pdb(made.topology, made.positions, path)
    return path


def asked(pdb, out, **options):
    options = {"steps": 1500, "chains": 2, "interval": 0.04, "device": Device.CPU} | options
    return MDSettings(pdb=pdb, out=out, **options)


def after(count):
    """Asks to stop at the `count`-th question."""
    questions = iter(range(1, 10**9))
    return lambda: next(questions) > count


def never():
    return False


def quiet(share, text):
    assert 0 <= share <= 1


@pytest.fixture(scope="module", autouse=True)
def short_bursts():
    """Several kernel steps in a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(reference.BURST, "CPU", 800)  # 40 frames of two chains
        yield


@pytest.fixture
def no_page(monkeypatch):
    """Leaves out the drawing of the page, which takes most of the time of a short run."""
    monkeypatch.setattr(reporting, "write_report", lambda *_: "")


@pytest.fixture(scope="module")
def whole(pdb, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, md(asked(pdb, out), quiet, never)


def files(out):
    names = ["topology.pdb", "log.csv", *sorted(path.name for path in out.glob("chain-*.dcd"))]
    return {name: (out / name).read_bytes() for name in names}


def test_the_files_and_the_report(whole):
    out, report = whole
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("state-")) == [
        "chain-000.dcd", "chain-001.dcd", "log.csv", "report.html", "report.json", "state.safetensors", "topology.pdb",
    ]  # fmt: skip
    written = json.loads((out / "report.json").read_text())
    assert written.keys() >= KEYS
    told = {name: written[name] for name in ("peptide", "atoms", "chains", "steps", "temperature", "seed", "protocol")}
    assert told == {
        "peptide": "AG", "atoms": 20, "chains": 2, "steps": 1500, "temperature": 310.0, "seed": 0, "protocol": "tuned",
    }  # fmt: skip
    assert written["exact"] is False
    assert written["exactness"].startswith("Not exact: ")
    assert "4 fs" in written["exactness"]
    assert written["exactness"] in (out / "report.html").read_text()
    assert (written["moves_proposed"], written["acceptance"], written["checkpoint"]) == (0, None, None)
    assert written["energy_evaluations"] == 3000
    assert written["ess"]["min"] == min(value for name, value in written["ess"].items() if name != "min") > 0
    assert written["ess_per_second"] == pytest.approx(written["ess"]["min"] / written["seconds"])
    assert written["picoseconds"] == pytest.approx(6.0)
    assert written["verdict"] == "not converged"
    assert "fewer than four chains (2), so mixing cannot be judged" in written["reasons"]
    assert not any("biased" in reason for reason in written["reasons"])
    assert report["message"].startswith("2 x 6 ps, ")


def test_the_logged_energy_is_that_of_the_frames(whole, pdb):
    out, _ = whole
    frames = [mdtraj.load(str(path), top=str(out / "topology.pdb")).xyz for path in sorted(out.glob("chain-*.dcd"))]
    assert [len(chain) for chain in frames] == [150, 150]
    lines = [line.split(",") for line in (out / "log.csv").read_text().splitlines()[1:]]
    assert [line[:2] for line in lines[-2:]] == [["0", "1500"], ["1", "1500"]]
    energy = OpenMMEnergy(prepare(pdb).system, platform="Reference")
    for chain, x in enumerate(frames):
        logged = torch.tensor([float(line[2]) for line in lines if line[0] == str(chain)], dtype=torch.float64)
        found = energy.kilojoules(torch.from_numpy(x[::30].copy()).double())[0]
        torch.testing.assert_close(found, logged[::30], atol=0.05, rtol=0)


@pytest.mark.parametrize("stops", [[1], [0, 2], "extended"])
@pytest.mark.usefixtures("no_page")
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(whole, pdb, tmp_path, stops):
    settings = asked(pdb, tmp_path / "run")
    if stops == "extended":
        md(replace(settings, steps=370), quiet, never)
        md(replace(settings, steps=740, resume=True), quiet, never)
    else:
        for i, count in enumerate(stops):
            md(replace(settings, resume=i > 0), quiet, after(count))
            assert len(files(settings.out)["log.csv"]) < len(files(whole[0])["log.csv"])
    report = md(replace(settings, resume=True), quiet, never)
    assert files(settings.out) == files(whole[0])
    assert report["steps"] == 1500
    assert report["ess"] == whole[1]["ess"]


@pytest.mark.usefixtures("no_page")
def test_a_run_that_died_goes_on_from_its_last_snapshot(whole, pdb, tmp_path, monkeypatch):
    settings = asked(pdb, tmp_path / "run")
    flush, flushes = RunDirectory.flush, iter(range(10**9))

    def dies(self):
        flush(self)
        if self.frames and next(flushes) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "flush", dies)
    with pytest.raises(KeyboardInterrupt):
        md(settings, quiet, never)
    monkeypatch.undo()
    assert (settings.out / "chain-000.dcd").stat().st_size > 1000  # frames that no snapshot knows of
    md(replace(settings, resume=True), quiet, never)
    assert files(settings.out) == files(whole[0])


@pytest.mark.usefixtures("no_page")
def test_another_seed_is_another_run_and_other_options_are_refused(whole, pdb, tmp_path):
    md(asked(pdb, tmp_path / "run", seed=1, steps=100), quiet, never)
    assert files(tmp_path / "run")["chain-000.dcd"] != files(whole[0])["chain-000.dcd"]
    for change in ({"seed": 2}, {"temperature": 300.0}, {"protocol": Protocol.PAPER}, {"interval": 0.1}):
        options = {"seed": 1, "resume": True, "steps": 200} | change
        with pytest.raises(DirectoryRefused, match=f"was started with {next(iter(change))} "):
            md(asked(pdb, tmp_path / "run", **options), quiet, never)


@pytest.mark.usefixtures("no_page")
def test_steps_are_rounded_up_to_frames_and_seconds_are_kept(pdb, tmp_path):
    report = md(
        asked(pdb, tmp_path / "paper", protocol=Protocol.PAPER, steps=21, interval=0.005, chains=1), quiet, never
    )
    assert (report["steps"], report["frames"], report["picoseconds"]) == (30, 3, pytest.approx(0.015))
    assert "0.5 fs" in report["exactness"]
    report = md(asked(pdb, tmp_path / "timed", steps=None, seconds=0.01), quiet, never)
    assert report["frames"] > 0


def test_what_cannot_be_prepared_leaves_nothing(tmp_path):
    (tmp_path / "bad.pdb").write_text("END\n")
    with pytest.raises(InputError):
        md(asked(tmp_path / "bad.pdb", tmp_path / "run"), quiet, never)
    assert not (tmp_path / "run").exists()


def test_the_command_stops_when_asked_and_goes_on(pdb, tmp_path):
    command = [
        sys.executable, "-m", "timewarp.cli", "md", str(pdb), "--out", str(tmp_path / "run"), "--seconds", "500",
        "--chains", "2", "--interval", "0.04", "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "run" / "state.safetensors").exists():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "stopping after this step; once more ends at once\n")
    assert "stopped when asked, and saved; --resume continues" in out
    done = json.loads((tmp_path / "run" / "report.json").read_text())["steps"]
    again = subprocess.run(
        [*command[:7], "--steps", str(done + 10), *command[9:], "--resume"], capture_output=True, text=True
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["steps"] == done + 10
