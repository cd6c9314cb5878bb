"""A run directory: readable at any moment, and a run that was killed goes on as if it had not been."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timewarp.dcd import Trajectory
from timewarp.output import DirectoryRefused, OutputError, RunDirectory
from timewarp.snapshot import Snapshot

CHAINS, ATOMS = 3, 4
IDENTITY = {"seed": 1, "chains": CHAINS, "temperature": 310.0}
FILES = ["log.csv", "topology.pdb", *[f"chain-{i:03d}.dcd" for i in range(CHAINS)], "state.safetensors"]


def topology() -> str:
    atom = "ATOM  {0:5d}  C{0}  LIG A   1      {0:6.3f}   0.000   0.000  1.00  0.00           C  \n"
    return "".join(atom.format(i + 1) for i in range(ATOMS)) + "END\n"


def walk(path: Path, steps: int, save_every: int = 4, resume: bool = False, finish: bool = True) -> None:
    """A random walk that writes as a sampler does: a frame a step, a snapshot now and then and at the end."""
    with RunDirectory.open(path, IDENTITY, resume) as run:
        if run.saved is None:
            run.begin(topology(), ATOMS, CHAINS)
            x, done = torch.zeros(CHAINS, ATOMS, 3, dtype=torch.float64), 0
            rng = torch.Generator().manual_seed(1)
        else:
            x, done, rng = run.saved.tensors["x"], run.saved.meta["step"], run.saved.generator()
        for step in range(done + 1, steps + 1):
            x = x + 0.1 * torch.randn(x.shape, generator=rng, dtype=x.dtype)
            run.append(step, x, x.square().sum((1, 2)), torch.rand(CHAINS, generator=rng) < 0.5)
            if step % save_every == 0:
                run.save({"x": x}, rng, {"step": step})
        if finish:
            run.save({"x": x}, rng, {"step": steps})
        else:
            run.flush()


def contents(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in FILES}


def test_a_run_leaves_the_files_of_the_design(tmp_path):
    walk(tmp_path / "run", 10)
    pdb = mdtraj.load(str(tmp_path / "run" / "topology.pdb"))
    chain = mdtraj.load(str(tmp_path / "run" / "chain-002.dcd"), top=pdb.topology)
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    last = [row for row in rows if row["chain"] == "2"][-1]
    assert chain.xyz.shape == (10, ATOMS, 3)
    assert list(rows[0]) == ["chain", "step", "potential_kj_per_mol", "accepted"]
    assert (len(rows), last["step"], {row["accepted"] for row in rows}) == (10 * CHAINS, "10", {"0", "1"})
    # the potential of this walk is the square of its positions, so a wrong order, unit or chain would show
    assert np.square(chain.xyz[-1]).sum() == pytest.approx(float(last["potential_kj_per_mol"]), rel=1e-4)


def test_what_was_appended_can_be_read_back(tmp_path):
    walk(tmp_path / "run", 7)
    with RunDirectory.open(tmp_path / "run", IDENTITY, resume=True) as run:
        positions, log = run.positions(), run.log()
        assert torch.equal(run.positions(5), positions[5:])
    assert positions.shape == (7, CHAINS, ATOMS, 3)
    assert torch.allclose(positions.double().square().sum((2, 3)), log["potential_kj_per_mol"], rtol=1e-4)
    assert log["step"][:, 0].tolist() == list(range(1, 8))


def test_of_every_few_frames_one_is_read_back(tmp_path):
    walk(tmp_path / "run", 11)
    with RunDirectory.open(tmp_path / "run", IDENTITY, resume=True) as run:
        whole, thin, positions = run.log(), run.log(4), run.positions()
    assert thin["step"][:, 1].tolist() == [1, 5, 9]
    assert torch.equal(thin["potential_kj_per_mol"], whole["potential_kj_per_mol"][::4])
    means = torch.stack([part.mean(0) for part in whole["accepted"].split(4)])
    assert torch.allclose(thin["accepted"], means)
    for chain in range(CHAINS):
        read = Trajectory(tmp_path / "run" / f"chain-{chain:03d}.dcd", ATOMS).read(1, 10, 4)
        assert torch.equal(torch.from_numpy(read), positions[1:10:4, chain])


@pytest.mark.parametrize("steps", [9, 10, 12])
def test_a_stopped_run_goes_on_as_one_left_alone(tmp_path, steps):
    walk(tmp_path / "whole", 20)
    walk(tmp_path / "parts", steps)
    walk(tmp_path / "parts", 20, resume=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_debris_after_the_last_snapshot_is_cut_away(tmp_path_factory, data):
    tmp = tmp_path_factory.mktemp("debris")
    walk(tmp / "whole", 12)
    walk(tmp / "parts", 11, finish=False)  # snapshot at 8, frames up to 11
    for name in [name for name in FILES if name.endswith(("csv", "dcd"))]:
        file = tmp / "parts" / name
        saved = size_at(file, 8)
        with file.open("r+b") as handle:
            handle.truncate(data.draw(st.integers(saved, file.stat().st_size), label=name))
            handle.seek(0, os.SEEK_END)
            handle.write(data.draw(st.binary(max_size=300), label="garbage"))
    (tmp / "parts" / ".state.safetensors.tmp").write_bytes(b"half of a snapsh")
    walk(tmp / "eight", 8)
    RunDirectory.open(tmp / "parts", IDENTITY, resume=True).close()
    assert contents(tmp / "parts") == contents(tmp / "eight")
    walk(tmp / "parts", 12, resume=True)
    assert contents(tmp / "parts") == contents(tmp / "whole")


def size_at(file: Path, frames: int) -> int:
    if file.suffix == ".csv":
        return sum(len(line) for line in file.read_bytes().splitlines(keepends=True)[: 1 + frames * CHAINS])
    trajectory = Trajectory(file, ATOMS)
    frame = ATOMS * 12 + 24
    return file.stat().st_size - (trajectory.frames() - frames) * frame


def test_debris_would_show_if_it_were_kept(tmp_path):
    """The comparison above can fail: the same debris, not cut away, is seen."""
    walk(tmp_path / "whole", 12)
    walk(tmp_path / "parts", 11, finish=False)
    assert contents(tmp_path / "parts") != contents(tmp_path / "whole")


def spawn(path: Path, steps: int, resume: bool) -> subprocess.Popen:
    code = f"""
        import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from pathlib import Path
        from test_output import walk
        print("go", flush=True)
        walk(Path({str(path)!r}), {steps}, save_every=7, resume={resume})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    return process


def test_a_run_killed_at_any_moment_goes_on_exactly(tmp_path):
    steps = 400
    walk(tmp_path / "whole", steps, save_every=7)
    delays = torch.rand(5, generator=torch.Generator().manual_seed(0)) * 0.2
    killed = 0
    for delay in delays.tolist():
        process = spawn(tmp_path / "parts", steps, resume=True)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed > 0
    walk(tmp_path / "parts", steps, save_every=7, resume=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_directory_that_holds_a_run_is_not_overwritten(tmp_path):
    walk(tmp_path / "run", 5)
    before = contents(tmp_path / "run")
    with pytest.raises(DirectoryRefused, match="holds a run; continue it with --resume or give another --out"):
        RunDirectory.open(tmp_path / "run", IDENTITY)
    assert contents(tmp_path / "run") == before


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    for resume in (False, True):
        with pytest.raises(DirectoryRefused, match=r"not empty and holds no run \(there is thesis.tex\)"):
            RunDirectory.open(tmp_path, IDENTITY, resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_log_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "log.csv").write_text("time,temperature\n0,310\n")
    with pytest.raises(DirectoryRefused, match="not the log of a run"):
        RunDirectory.open(tmp_path, IDENTITY, resume=True)
    assert (tmp_path / "log.csv").read_text() == "time,temperature\n0,310\n"


def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(DirectoryRefused, match="is a file; give a directory"):
        RunDirectory.open(tmp_path / "run", IDENTITY)


def test_a_directory_in_use_is_refused_until_it_is_free(tmp_path):
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        run.begin(topology(), ATOMS, CHAINS)
        for resume in (False, True):
            with pytest.raises(DirectoryRefused, match="in use by another run"):
                RunDirectory.open(tmp_path / "run", IDENTITY, resume)
    RunDirectory.open(tmp_path / "run", IDENTITY, resume=True).close()


def test_another_run_does_not_go_on_from_this_one(tmp_path):
    walk(tmp_path / "run", 5)
    before = contents(tmp_path / "run")
    with pytest.raises(DirectoryRefused, match=r"was started with temperature 310.0, not 300.0"):
        RunDirectory.open(tmp_path / "run", IDENTITY | {"temperature": 300.0}, resume=True)
    assert contents(tmp_path / "run") == before


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="bad peptide"), RunDirectory.open(tmp_path / "run", IDENTITY):
        raise RuntimeError("bad peptide")
    assert list(tmp_path.iterdir()) == []


def test_resuming_nothing_starts_at_the_beginning(tmp_path):
    walk(tmp_path / "fresh", 6, resume=True)
    walk(tmp_path / "early", 3, save_every=100, finish=False)  # died before its first snapshot
    walk(tmp_path / "early", 6, resume=True)
    assert contents(tmp_path / "early") == contents(tmp_path / "fresh")


def test_a_snapshot_of_which_a_bit_changed_is_refused():
    raw = Snapshot({"x": torch.arange(9.0)}, torch.Generator().get_state(), {"step": 3}).encode()
    assert Snapshot.decode(raw).meta == {"step": 3}
    for place in range(1, 40):
        changed = bytearray(raw)
        changed[-place] ^= 1
        with pytest.raises(ValueError, match="bits have changed"):
            Snapshot.decode(bytes(changed))


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_snapshot_is_one_clear_error_and_loses_nothing(tmp_path, keep):
    walk(tmp_path / "run", 5)
    state = tmp_path / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:keep])
    before = contents(tmp_path / "run")
    with pytest.raises(OutputError, match=r"state.safetensors is damaged .*; the trajectories beside it were left"):
        RunDirectory.open(tmp_path / "run", IDENTITY, resume=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["log.csv", "chain-001.dcd"])
def test_a_file_shorter_than_the_snapshot_says_so_and_loses_nothing(tmp_path, name):
    walk(tmp_path / "run", 5)
    with (tmp_path / "run" / name).open("r+b") as file:
        file.truncate((tmp_path / "run" / name).stat().st_size - 1)
    before = contents(tmp_path / "run")
    with pytest.raises(OutputError, match=f"{name} has .* but state.safetensors was saved after"):
        RunDirectory.open(tmp_path / "run", IDENTITY, resume=True)
    assert contents(tmp_path / "run") == before


def test_a_missing_or_foreign_trajectory_says_so(tmp_path):
    walk(tmp_path / "run", 5)
    (tmp_path / "run" / "chain-001.dcd").write_bytes(b"x" * 500)
    with pytest.raises(OutputError, match=r"chain-001.dcd is not a trajectory of 4 atoms"):
        RunDirectory.open(tmp_path / "run", IDENTITY, resume=True)
    (tmp_path / "run" / "chain-001.dcd").unlink()
    with pytest.raises(OutputError, match=r"chain-001.dcd: No such file"):
        RunDirectory.open(tmp_path / "run", IDENTITY, resume=True)


def test_a_place_where_nothing_can_be_made_says_so():
    with pytest.raises(OutputError, match="cannot use /proc/"):
        RunDirectory.open("/proc/timewarp-run", IDENTITY)


def test_a_full_disk_says_so_and_the_run_goes_on_once_there_is_room(tmp_path):
    """The kernel refuses to let any file grow past a limit, in the middle of a write, as a full disk does."""
    code = f"""
        import resource, sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from pathlib import Path
        from test_output import walk
        from timewarp.output import OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1700, 1700))
        try:
            walk(Path({str(tmp_path / "run")!r}), 40)
        except OutputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "File too large; what was saved in" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert mdtraj.load(str(tmp_path / "run/chain-000.dcd"), top=str(tmp_path / "run/topology.pdb")).n_frames >= 4
    walk(tmp_path / "run", 40, resume=True)
    walk(tmp_path / "whole", 40)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_the_report_is_strict_json(tmp_path):
    walk(tmp_path / "run", 2)
    with RunDirectory.open(tmp_path / "run", IDENTITY, resume=True) as run:
        values = {
            "ess": float("nan"),
            "moves": torch.tensor([1, 2]),
            "x": np.float32(0.5),
            "exact": True,
            "p": Path("a"),
        }
        run.report(values, "<html>")
    read = json.loads((tmp_path / "run" / "report.json").read_text(), parse_constant=pytest.fail)
    assert read == {"ess": None, "moves": [1, 2], "x": 0.5, "exact": True, "p": "a"}
    assert (tmp_path / "run" / "report.html").read_text() == "<html>"


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.floats(width=64), max_size=5),
    meta=st.dictionaries(st.text(max_size=4), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)),
    seed=st.integers(0, 2**31),
)
def test_a_snapshot_gives_back_the_bits(numbers, meta, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.tensor(numbers, dtype=torch.float64)
    one = torch.tensor([[7, 8]])[:, 0]  # of one element, which is contiguous whatever its stride
    tensors = {"x": x, "view": x.expand(2, -1).mT, "rng": torch.tensor(True), "one": one}
    back = Snapshot.decode(Snapshot(tensors, rng.get_state(), meta).encode())
    assert torch.equal(back.tensors["x"].view(torch.int64), x.view(torch.int64))
    assert back.tensors["view"].shape == (len(numbers), 2)
    assert back.tensors["one"].tolist() == [7]
    assert (back.tensors["rng"].item(), back.meta) == (True, meta)
    assert torch.equal(torch.rand(3, generator=back.generator()), torch.rand(3, generator=rng))


@settings(max_examples=25, deadline=None)
@given(atoms=st.integers(1, 9), chunks=st.lists(st.integers(0, 5), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_trajectory_is_the_same_however_it_is_cut_into_appends(tmp_path_factory, atoms, chunks, seed):
    frames = np.random.default_rng(seed).normal(size=(sum(chunks) + 1, atoms, 3)).astype(np.float32)
    path = tmp_path_factory.mktemp("dcd")
    pieces, whole = Trajectory(path / "pieces.dcd", atoms), Trajectory(path / "whole.dcd", atoms)
    pieces.create()
    whole.create()
    done = 0
    for count in [*chunks, 1]:
        pieces.write(done, frames[done : done + count])
        done += count
    whole.write(0, frames)
    assert pieces.path.read_bytes() == whole.path.read_bytes()
    with mdtraj.open(str(whole.path)) as file:
        assert np.allclose(file.read()[0] / 10, frames, atol=1e-6)
    assert np.allclose(whole.read(1), frames[1:], atol=1e-6)
