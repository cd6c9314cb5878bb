"""The command: options become settings, an error is one line and a status, and a run can be stopped."""

import dataclasses
import inspect
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from timewarp import cli, settings
from timewarp.cli import ending, execute
from timewarp.md.system import prepare
from timewarp.resources import peptide_path

RUNS = {
    "sample": settings.SampleSettings,
    "explore": settings.ExploreSettings,
    "md": settings.MDSettings,
    "data": settings.DataSettings,
    "train": settings.TrainSettings,
}


@pytest.mark.parametrize("command", RUNS)
def test_options_are_the_fields_of_the_settings(command):
    options = inspect.signature(getattr(cli, command)).parameters
    fields = {field.name: field for field in dataclasses.fields(RUNS[command])}
    assert options.keys() == fields.keys()
    # of which data takes one or the other, so that none of them has a default of its own
    either = {"sequences", "out", "export"} if command == "data" else set()
    for name, option in options.items():
        if option.default is not inspect.Parameter.empty and name not in either:
            assert option.default == fields[name].default, name


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["md", "a.pdb", "--chains", "3"], ("chains", 3)),
        (["md", "a.pdb"], ("seconds", 60.0)),
        (["md", "a.pdb", "--steps", "5"], ("seconds", None)),
        (["sample", "a.pdb", "--steps", "5", "--seconds", "2"], ("seconds", 2.0)),
        (["sample", "a.pdb", "--checkpoint", "4aa"], ("checkpoint", "4aa")),
        (["sample", "a.pdb", "--width", "7"], ("width", 7)),
        (["sample", "a.pdb", "--anneal", "0"], ("anneal", 0)),
        (["explore", "a.pdb", "--temperature", "400"], ("temperature", 400.0)),
        (["explore", "a.pdb", "--resume"], ("resume", True)),
        (["data", "AA", "AV"], ("sequences", ("AA", "AV"))),
        (["data", "AA", "--exclude", "a.txt", "--exclude", "b.txt"], ("exclude", (Path("a.txt"), Path("b.txt")))),
        (["train", "d", "--steps", "5", "--validation", "AA", "--validation", "AV"], ("validation", ("AA", "AV"))),
        (["train", "d", "--seconds", "5", "--own-from", "7"], ("own_from", 7)),
        (["train", "d", "--steps", "5", "--chart", "cartesian"], ("chart", settings.Chart.CARTESIAN)),
        (["md", "a.pdb", "--device", "cpu"], ("device", settings.Device.CPU)),
    ],
)
def test_what_is_asked_for_arrives(monkeypatch, arguments, value):
    handed = []
    monkeypatch.setattr(ending, "watch", lambda work, asked, _: handed.append((work, asked)) or [])
    assert execute([*arguments, "--out", "o"]) == 0
    ((work, asked),) = handed
    assert work == arguments[0]
    assert isinstance(asked, RUNS[work])
    assert (value[0], getattr(asked, value[0])) == value


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("sample --out {out}", "Missing argument 'PDB'"),
        ("sample a.pdb", "Missing option '--out'"),
        ("sample a.pdb --out {out} --steps many", "Invalid value for '--steps'"),
        ("sample a.pdb --out {out} --steps 0", "--steps: expected 1 or more, got 0"),
        ("sample a.pdb --out {out} --seconds -1", "--seconds: expected more than 0, got -1.0"),
        ("sample a.pdb --out {out} --seconds nan", "--seconds: expected more than 0, got nan"),
        ("sample a.pdb --out {out} --chains 0", "--chains: expected 1 or more, got 0"),
        ("sample a.pdb --out {out} --width 0", "--width: expected 1 or more, got 0"),
        ("sample a.pdb --out {out} --anneal -1", "--anneal: expected 0 or more, got -1"),
        ("sample a.pdb --out {out} --temperature 0", "--temperature: expected a positive number of kelvin, got 0.0"),
        ("sample a.pdb --out {out} --seed -1", "--seed: expected 0 or more, below 2^63, got -1"),
        ("sample a.pdb --out {out} --device gpu", "Invalid value for '--device'"),
        ("sample a.pdb --out {out} --warp", "No such option: --warp"),
        ("explore a.pdb --out {out} --rise 0", "--rise: expected more than 0 kJ/mol, got 0.0"),
        ("md a.pdb --out {out} --interval 0", "--interval: expected a positive number of ps, got 0.0"),
        ("md a.pdb --out {out} --protocol fast", "Invalid value for '--protocol'"),
        ("data --out {out}", "SEQUENCE...: expected at least one, got none"),
        ("train d --out {out}", "training: expected a limit, --steps or --seconds, got neither"),
        ("train d --out {out} --steps 1 --velocities 4", "--velocities: expected 0 to 3, got 4"),
        (
            "train d --out {out} --steps 1 --chart cartesian --velocities 0",
            "--velocities: expected 1 to 3 for the Cartesian chart, got 0",
        ),
        ("train d --out {out} --steps 1 --acceptance -1", "--acceptance: expected 0 or more, got -1.0"),
        ("data AA --out {out} --walkers 0", "--walkers: expected 1 or more, got 0"),
        ("build AXA --out {out}", "found X at place 2 of AXA"),
        ("build '' --out {out}", "expected a sequence"),
        ("warp", "No such command 'warp'"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_status_2(tmp_path, capsys, arguments, complaint):
    out = tmp_path / "out"
    asked = [word.strip("'").format(out=out) for word in arguments.split()]
    assert execute(asked) == 2
    said = capsys.readouterr()
    assert complaint in said.err
    assert (said.out, len(said.err.splitlines()), out.exists()) == ("", 1, False)


def test_build_writes_a_peptide_that_can_be_prepared(tmp_path, capsys):
    out = tmp_path / "new" / "AG.pdb"
    assert execute(["build", "AG", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {out}: AG, ")
    assert prepare(out).sequence == "AG"


def test_a_file_that_cannot_be_written_is_status_1(capsys):
    assert execute(["build", "AG", "--out", "/proc/AG.pdb"]) == 1
    assert capsys.readouterr().err == "timewarp: cannot use /proc/AG.pdb: No such file or directory\n"


def test_info_tells_versions_platforms_and_peptides(capsys):
    assert execute(["info"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["torch"].startswith("2.13.0")
    assert "Reference" in said["openmm-runs"]
    assert Path(said["peptide"].split(" in ")[1]).is_file()


# A stand-in for the sampler: what is tested is the command around it, in a process of its own.
SAMPLER = """
    import sys, time, types
    from timewarp import cli
    from timewarp.output import RunDirectory
    def sample(settings, progress, stop):
        if settings.checkpoint == "broken":
            raise RuntimeError("the flow\\nis broken")
        with RunDirectory.open(settings.out, {}, settings.resume) as run:
            print("started", flush=True)
            for step in range(1, 6000):
                progress(step / 6000, "[bold]walking")
                if stop():
                    time.sleep(settings.width)
                    break
                time.sleep(0.01)
            report = {"exact": True, "chains": 1, "moves_accepted": 1, "moves_proposed": 4, "acceptance": 0.25,
                      "seconds": 1.0, "ess": {"min": 12.0}, "verdict": "not converged", "reasons": ["too short"]}
            return report
    sys.modules["timewarp.assemble"] = types.SimpleNamespace(sample=sample)
    cli.main()
"""


def start(out: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(SAMPLER),
        "sample",
        str(peptide_path("AA")),
        "--out",
        str(out),
        *options,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_and_reports(tmp_path, number):
    process = start(tmp_path / "run", "--width", "1")
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "stopping after this step; once more ends at once\n")
    assert out.splitlines() == [
        "exact: 1 chains, 1 of 4 moves accepted (25 %) in 1 s",
        "effective samples of the slowest observable: 12",
        "not converged: too short",
        "stopped when asked, and saved; --resume continues",
        f"results in {tmp_path / 'run'}",
    ]


def test_the_second_signal_ends_at_once(tmp_path):
    process = start(tmp_path / "run", "--width", "1000")
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("stopping")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT


def test_a_failure_is_one_line_and_status_1_and_a_traceback_when_asked(tmp_path, monkeypatch):
    process = start(tmp_path / "run", "--checkpoint", "broken")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        1,
        "timewarp: failed: RuntimeError: the flow is broken (TIMEWARP_DEBUG=1 says where)\n",
    )
    monkeypatch.setenv("TIMEWARP_DEBUG", "1")
    process = start(tmp_path / "run", "--checkpoint", "broken")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (1, True)


def test_a_directory_that_is_taken_is_status_2(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    process = start(tmp_path)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, len(err.splitlines())) == (2, 1)
    assert "not empty and holds no run" in err
