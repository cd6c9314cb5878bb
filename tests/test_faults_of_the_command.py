"""`timewarp sample` with what cannot be sampled, run or resumed: a status and one line, and nothing is lost.

Most faults share one process, since the first call of the command imports for seconds; the others have their own.
"""

import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from md.broken import CIF_FAULTS, FAULTS, sound
from safetensors.torch import load_file, save_file

from timewarp.resources import checkpoint_path, peptide_path

COMMAND = [sys.executable, "-m", "timewarp.cli"]
SHORT = ["--steps", "30", "--chains", "2", "--width", "3", "--anneal", "1", "--warm-up", "4"]
# Calls of the command, one after another. `limit` is the size in bytes at which files are refused, as a full disk does;
# `meek` takes away the right of a superuser to write everywhere.
SHELL = """
    import contextlib, ctypes, io, json, resource, sys
    from timewarp.cli import execute

    def held(limit, meek):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        libc, head, data = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if libc.capget(head, data) == 0:
            for i in (0, 3):  # effective, of what is permitted
                data[i] = 0 if meek else data[i + 1]
            libc.capset(head, data)

    for line in sys.stdin:
        asked = json.loads(line)
        said, printed = io.StringIO(), io.StringIO()
        held(asked["limit"], asked["meek"])
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            status = execute(asked["arguments"])
        held(None, False)
        print(json.dumps([status, said.getvalue(), printed.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command: arguments in; status, stderr and stdout out."""
    errors = tmp_path_factory.mktemp("shell") / "stderr"
    with errors.open("w") as err:
        shell = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SHELL)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )

    def call(arguments, limit=None, meek=False):
        shell.stdin.write(json.dumps({"arguments": arguments, "limit": limit, "meek": meek}) + "\n")
        shell.stdin.flush()
        answer = shell.stdout.readline()
        assert answer, errors.read_text()
        return json.loads(answer)

    yield call
    shell.stdin.close()
    assert shell.wait(60) == 0
    assert errors.read_text() == ""  # nor do libraries speak past Python


def one_line(said, *parts):
    assert len(said.splitlines()) == 1, said
    assert said.startswith("timewarp: ")
    assert "Traceback" not in said
    for part in parts:
        assert part in said


@pytest.fixture(scope="module")
def faults(command, tmp_path_factory):
    """Each fault of a file: the arguments, and then what the command did, all in one process."""
    folder = tmp_path_factory.mktemp("faults")
    texts = sound(folder)
    calls = {}
    for kind, table in (("pdb", FAULTS), ("cif", {k: ("cif", *v) for k, v in CIF_FAULTS.items()})):
        for name, (source, change, _) in table.items():
            changed = change(texts[source])
            path = folder / f"{len(calls)}.{kind}"
            path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
            calls[name, kind] = path
    (folder / "folder.pdb").mkdir()
    os.mkfifo(folder / "pipe.pdb")
    (folder / "x.xyz").write_text(texts["AA"])
    for name in ("none.pdb", "folder.pdb", "pipe.pdb", "x.xyz"):
        calls[name, "path"] = folder / name
    out = folder / "out"
    found = {
        name: (path, command(["sample", str(path), "--out", str(out / str(i)), *SHORT]))
        for i, (name, path) in enumerate(calls.items())
    }
    return found, out


def test_every_fault_of_a_file_is_status_2_and_one_line_and_leaves_nothing(faults):
    found, out = faults
    assert len(found) >= 50
    for path, (status, said, printed) in found.values():
        assert (status, printed) == (2, ""), said
        # what was expected, what was found, what to do
        one_line(said, f"{path}: expected ", ", found")
        assert len(said) < 700
    assert len({said.split(": ", 2)[2] for _, (_, said, _) in found.values()}) >= 40
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "part"),
    [("empty", "found an empty file"), ("chain break", "(chain break)"), ("unknown residue", "ligand XYZ")],
)
def test_the_command_itself_says_so(faults, name, part):
    """The entry point in a process of its own says what was said above."""
    found, out = faults
    path, (_, before, _) = found[name, "pdb"]
    words = [*COMMAND, "sample", str(path), "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", before)
    one_line(done.stderr, part)
    assert not out.exists()


def call(out, *changes, peptide="AA"):
    return ["sample", str(peptide_path(peptide)), "--out", str(out), *SHORT, *changes]


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A checkpoint of one's own."""
    path = tmp_path_factory.mktemp("flow") / "flow.json"
    for suffix in (".json", ".safetensors"):
        shutil.copy(checkpoint_path("2aa").with_suffix(suffix), path.with_suffix(suffix))
    return path


@pytest.fixture(scope="module")
def finished(command, flow, tmp_path_factory):
    """A short run that is over."""
    out = tmp_path_factory.mktemp("finished") / "run"
    status, said, _ = command(call(out, "--checkpoint", str(flow)))
    assert (status, said) == (0, "")
    return out


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if not path.name.startswith(".")}


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def checkpoints(folder):
    """Checkpoints that cannot be used: the name, and what the line says of it."""
    card, weights = checkpoint_path("2aa"), checkpoint_path("2aa").with_suffix(".safetensors")
    facts, tensors = json.loads(card.read_text()), load_file(weights)
    name = next(iter(tensors))

    def made(label, card_bytes=None, weight_bytes=None, says=""):
        (folder / f"{label}.json").write_bytes(card.read_bytes() if card_bytes is None else card_bytes)
        (folder / f"{label}.safetensors").write_bytes(weights.read_bytes() if weight_bytes is None else weight_bytes)
        return str(folder / f"{label}.json"), says

    def packed(values):
        save_file(values, folder / "packed")
        return (folder / "packed").read_bytes()

    def carded(**changes):
        return json.dumps(facts | changes).encode()

    torch.save({"x": Payload(folder / "unpickled"), **tensors}, folder / "torch")
    raw = weights.read_bytes()
    nan = tensors | {name: torch.full_like(tensors[name], torch.nan)}
    return {
        "no such name": ("4aa-of-tomorrow", "no checkpoint file"),
        "no such file": (str(folder / "none.json"), "no checkpoint file"),
        "cut short": made("cut", weight_bytes=raw[: len(raw) // 2], says="found damaged files"),
        "empty": made("empty", weight_bytes=b"", says="found damaged files"),
        "noise": made("noise", weight_bytes=os.urandom(500), says="found damaged files"),
        "a long header": made("header", weight_bytes=b"\xff" * 8 + raw[8:], says="found damaged files"),
        "a pickle": made("pickle", weight_bytes=pickle.dumps(Payload(folder / "unpickled")), says="found damaged"),
        "a torch file": made("torch", weight_bytes=(folder / "torch").read_bytes(), says="found damaged files"),
        "a card cut short": made("card", card_bytes=card.read_bytes()[:100], says="found damaged files"),
        "a binary card": made("binary", card_bytes=b"\x80\x04\xff", says="found damaged files"),
        "a list for a card": made("list", card_bytes=b"[]", says="version 1 at"),
        "a nested card": made("nested", card_bytes=b"[" * 100_000, says="found damaged files"),
        "another version": made("version", card_bytes=carded(version=99), says="expected a checkpoint of version 1"),
        "another kind": made("kind", card_bytes=carded(kind="graph"), says="found graph"),
        "another config": made("config", card_bytes=carded(config=facts["config"] | {"new": 1}), says="found others"),
        "no config": made("bare", card_bytes=carded(config=None), says="found others"),
        "an odd config": made("odd", card_bytes=carded(config=facts["config"] | {"width": "x"}), says="found others"),
        "a weight missing": made(
            "missing", weight_bytes=packed({k: v for k, v in tensors.items() if k != name}), says="found others"
        ),
        "another shape": made("shape", weight_bytes=packed(tensors | {name: torch.zeros(7)}), says="found others"),
        "not finite": made("nan", weight_bytes=packed(nan), says="expected finite weights"),
    }


def test_checkpoints_that_cannot_be_used(command, tmp_path):
    for name, says in checkpoints(tmp_path).values():
        status, said, printed = command(call(tmp_path / "out", "--checkpoint", name))
        assert (status, printed) == (2, ""), (name, said)
        one_line(said, says)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "unpickled").exists()


def test_the_pickle_would_show_if_it_were_loaded(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "unpickled")))
    assert (tmp_path / "unpickled").exists()


OTHERS = {
    "seed": ["--seed", "1"],
    "chains": ["--chains", "3"],
    "width": ["--width", "4"],
    "anneal": ["--anneal", "2"],
    "temperature": ["--temperature", "300"],
    "checkpoint": ["--checkpoint", "2aa"],
}


def test_directories_that_cannot_serve(command, flow, finished, tmp_path):
    taken, file, used = tmp_path / "taken", tmp_path / "file", tmp_path / "used"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    file.write_text("mine")
    shutil.copytree(finished, used)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "log.csv").write_text("time,money\n")
    ours = ("--checkpoint", str(flow))
    calls = {
        "not empty": (call(taken), "not empty and holds no run"),
        "a file": (call(file), "is a file; give a directory"),
        "below a file": (call(file / "run"), "cannot use"),
        "a run": (call(finished, *ours), "holds a run; continue it with --resume"),
        "in use": (call(used, *ours, "--resume"), "in use by another run"),
        "a log of something else": (call(foreign, "--resume"), "is not the log of a run"),
        **{name: (call(finished, *ours, *o, "--resume"), f"was started with {name}") for name, o in OTHERS.items()},
        "peptide": (call(finished, *ours, "--resume", peptide="ACE-ALA-NME"), "was started with peptide AA"),
        "command": (["explore", *call(finished)[1:6], "--resume"], "was started with command sample, not explore"),
    }
    before = [contents(path) for path in (taken, used, finished, foreign)]
    with (used / "log.csv").open() as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        found = [command(arguments) for arguments, _ in calls.values()]
    for (name, (_, says)), (status, said, printed) in zip(calls.items(), found, strict=True):
        assert (status, printed) == (1 if name == "below a file" else 2, ""), (name, said)
        one_line(said, says)
    assert [contents(path) for path in (taken, used, finished, foreign)] == before
    assert file.read_text() == "mine"


def test_a_checkpoint_that_changed_since_does_not_go_on(command, flow, finished):
    """Its waiting proposals were weighed by other weights."""
    before, weights = contents(finished), flow.with_suffix(".safetensors")
    kept, tensors = weights.read_bytes(), load_file(weights)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * 1.01}, weights)
    status, said, _ = command(call(finished, "--checkpoint", str(flow), "--steps", "40", "--resume"))
    weights.write_bytes(kept)
    assert status == 2
    one_line(said, "was started with weights ")
    assert contents(finished) == before


def test_runs_that_are_damaged_are_left_as_they_are(command, flow, finished, tmp_path):
    state = (finished / "state.safetensors").read_bytes()
    middle = len(state) - 200
    flipped = state[:middle] + bytes([state[middle] ^ 1]) + state[middle + 1 :]
    damages = {  # the file, what becomes of it, what the line says
        "state cut": ("state.safetensors", state[: len(state) // 2], "state.safetensors is damaged"),
        "state empty": ("state.safetensors", b"", "state.safetensors is damaged"),
        "state of zeros": ("state.safetensors", bytes(len(state)), "state.safetensors is damaged"),
        "state with one other bit": ("state.safetensors", flipped, "state.safetensors is damaged"),
        "state pickled": (
            "state.safetensors",
            pickle.dumps(Payload(tmp_path / "unpickled")),
            "state.safetensors is damaged",
        ),
        "trajectory cut": ("chain-001.dcd", (finished / "chain-001.dcd").read_bytes()[:-1], "chain-001.dcd has 29"),
        "trajectory gone": ("chain-001.dcd", None, "chain-001.dcd: No such file"),
        "trajectory of another": ("chain-001.dcd", b"x" * 999, "is not a trajectory of 23 atoms"),
        "log cut": ("log.csv", (finished / "log.csv").read_bytes()[:-1], "log.csv has"),
    }
    calls = []
    for name, (file, content, _) in damages.items():
        shutil.copytree(finished, tmp_path / name)
        (tmp_path / name / file).unlink()
        if content is not None:
            (tmp_path / name / file).write_bytes(content)
        calls.append(call(tmp_path / name, "--checkpoint", str(flow), "--resume"))
    before = {name: contents(tmp_path / name) for name in damages}
    found = [command(arguments) for arguments in calls]
    for (name, (_, _, says)), (status, said, printed) in zip(damages.items(), found, strict=True):
        assert (status, printed) == (1, ""), (name, said)
        one_line(said, says)
        assert "failed: " not in said  # it is known what happened
    assert {name: contents(tmp_path / name) for name in damages} == before
    assert not (tmp_path / "unpickled").exists()


def test_a_directory_that_may_not_be_written(command, flow, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for path in run.iterdir():
        path.chmod(0o444)
    run.chmod(0o555)
    tmp_path.chmod(0o555)
    before = contents(run)
    for out, where in ((tmp_path / "new", tmp_path / "new"), (run, run / "log.csv")):
        status, said, _ = command(call(out, "--checkpoint", str(flow), "--resume"), meek=True)
        assert status == 1
        one_line(said, f"cannot use {where}: Permission denied")
    tmp_path.chmod(0o755)
    run.chmod(0o755)
    assert contents(run) == before


def test_a_full_disk_ends_a_run_that_goes_on_once_there_is_room(command, flow, finished, tmp_path):
    """Full at the first state, then at the report."""
    out, there = tmp_path / "run", set()
    words = call(out, "--checkpoint", str(flow), "--resume")
    for limit in (5000, 120_000):
        status, said, printed = command(words, limit)
        assert (status, printed) == (1, "")
        one_line(said, f"cannot use {out}: File too large; what was saved in {out} is kept")
        there.add((out / "state.safetensors").exists())
    assert there == {False, True}
    assert command(words)[:2] == [0, ""]
    for name in ("chain-000.dcd", "chain-001.dcd", "log.csv", "topology.pdb"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name


def test_what_cannot_be_written_elsewhere_names_the_reason(command, tmp_path):
    status, said, _ = command(["build", "AA", "--out", str(tmp_path / "AA.pdb")], limit=100)
    assert status == 1
    one_line(said, "File too large")
    assert "failed: " not in said
