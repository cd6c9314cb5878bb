"""`timewarp sample`, killed at any moment and resumed, leaves what one left alone does; a long run stays small."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from timewarp.resources import peptide_path

# Snapshots at each moment, so that many kills fall into one; otherwise the command as it is.
COMMAND = """
    import sys
    from timewarp.assemble import looping
    from timewarp.cli import execute
    looping.SAVE_EVERY = 0.05
    sys.exit(execute(sys.argv[1:]))
"""
STEPS, CHAINS = 80, 2


def started(out, *more, steps=STEPS):
    words = ["sample", str(peptide_path("AA")), "--out", str(out), "--steps", str(steps), "--chains", str(CHAINS)]
    words += ["--width", "4", "--anneal", "1", "--warm-up", "4", "--seed", "5", *more]
    command = [sys.executable, "-c", textwrap.dedent(COMMAND), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    said, wrong = process.communicate(timeout=900)
    assert process.returncode == 0, wrong
    return said


def contents(out):
    names = ["log.csv", "topology.pdb", *(f"chain-{i:03d}.dcd" for i in range(CHAINS))]
    return {name: (out / name).read_bytes() for name in names}


def counts(out):
    report = json.loads((out / "report.json").read_text())
    names = ("steps", "moves_proposed", "moves_accepted", "energy_evaluations", "by_kernel", "ess", "rhat")
    return {name: report[name] for name in names}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    ended(started(out))
    return out


def killed(process, out, share, wait):
    """Kill `process` `wait` seconds after `share` of its log is there (with no share: after its start).

    Returns whether it was still running.
    """
    log = out / "log.csv"
    whole = 25 * STEPS * CHAINS
    while share and process.poll() is None and not (log.exists() and log.stat().st_size > share * whole):
        time.sleep(0.002)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def size(out):
    return (out / "log.csv").stat().st_size if (out / "log.csv").exists() else 0


def killed_and_resumed(alone, out, moments, *more):
    """How many of these moments came before the end, and found something to go on from."""
    whole, before = contents(alone), 0
    for share, wait in moments:
        process = started(out, "--resume", *more)
        before += killed(process, out, share, wait) and (not share or size(out) > 0)
    ended(started(out, "--resume", *more))
    assert contents(out) == whole
    assert counts(out) == counts(alone)
    return before


def test_a_killed_run_goes_on_as_one_left_alone(alone, tmp_path):
    assert killed_and_resumed(alone, tmp_path / "run", [(0.3, 0.02), (0.6, 0.0)]) >= 1
    assert not list((tmp_path / "run").glob(".state*"))


@pytest.mark.long
def test_a_run_killed_at_twenty_random_moments_goes_on_as_one_left_alone(alone, tmp_path):
    """Each moment has a run of its own; prints how many of the kills came before the end."""
    rng = random.Random(20)
    moments = [(0.0, rng.uniform(0, 12)) for _ in range(5)]
    moments += [(rng.uniform(0.001, 0.9), rng.expovariate(10)) for _ in range(15)]
    early = sum(killed_and_resumed(alone, tmp_path / f"run{i}", [moment]) for i, moment in enumerate(moments))
    print(f"{early} of 20 runs were killed before their end, and all went on to the same bytes")
    assert early >= 12


@pytest.mark.long
def test_a_run_of_which_openmm_has_the_last_word_goes_on_too(tmp_path):
    """Killed at five random moments; prints how many of the kills came before the end."""
    rng, alone = random.Random(5), tmp_path / "alone"
    ended(started(alone, "--verify"))
    moments = [(rng.uniform(0.001, 0.9), rng.expovariate(10)) for _ in range(5)]
    each = [(tmp_path / f"run{i}", [moment]) for i, moment in enumerate(moments)]
    early = sum(killed_and_resumed(alone, out, moment, "--verify") for out, moment in each)
    print(f"{early} of 5 runs with --verify were killed before their end, and all went on to the same bytes")
    assert early >= 3


@pytest.mark.long
def test_another_trajectory_would_show(alone, tmp_path):
    """Prints nothing: the comparison above can fail."""
    ended(started(tmp_path / "run", "--seed", "6"))
    other, whole = contents(tmp_path / "run"), contents(alone)
    assert other["topology.pdb"] == whole["topology.pdb"]
    assert all(other[name] != whole[name] for name in whole if name != "topology.pdb")


# What a run holds while it goes on, in MB: at some steps, and at most, with its report.
MEMORY = """
    import json, sys, time
    from importlib import import_module
    from timewarp.cli import execute
    sample = import_module("timewarp.assemble.sample")

    def held(word):
        lines = open("/proc/self/status").read().splitlines()
        return int(next(line for line in lines if line.startswith(word)).split()[1]) / 1024

    found, marks = [], [int(word) for word in sys.argv.pop(1).split(",")]
    append = sample.RunDirectory.append

    def noted(self, step, *values):
        append(self, step, *values)
        if step in marks:
            self.flush()
            found.append(held("VmRSS"))
            print(f"step {step}: {found[-1]:.0f} MB, {time.process_time():.0f} s of computing", flush=True)

    finish, took = sample.reporting.finish, []

    def timed(*values, **more):
        began = time.process_time()
        report = finish(*values, **more)
        took.append(time.process_time() - began)
        return report

    sample.RunDirectory.append, sample.reporting.finish = noted, timed
    status = execute(sys.argv[1:])
    print(json.dumps([*found, held("VmHWM"), *took]))
    sys.exit(status)
"""


def memory(out, marks, *more):
    words = ["sample", str(peptide_path("AA")), "--out", str(out), "--steps", str(max(marks)), "--seed", "5", *more]
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), ",".join(map(str, marks)), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_ten_times_the_steps_take_no_more_memory(tmp_path):
    early, late, *_ = memory(
        tmp_path / "run", (40, 400), "--chains", "2", "--width", "10", "--warm-up", "4", "--anneal", "0"
    )
    assert late - early < 12  # one graph kept a step would be more than 30


@pytest.mark.long
@pytest.mark.parametrize(("chains", "steps"), [(10, 100_000), (100, 10_000), (1, 1_000_000)])
def test_a_million_tests_take_no_more_memory_than_a_tenth_of_them(tmp_path, chains, steps):
    """Prints the memory of a run of AA at a tenth of its steps and at its end, and the most, with the report.

    Shorter with TIMEWARP_TESTS, the number of tests in all.
    """
    steps = min(steps, int(os.environ.get("TIMEWARP_TESTS", chains * steps)) // chains)
    marks = (steps // 10, steps // 5, steps // 2, steps)
    *held, most, report = memory(tmp_path / "run", marks, "--chains", str(chains))
    print(f"{chains} x {steps} tests: {[round(x) for x in held]} MB at steps {marks}, {most:.0f} MB at most")
    print(f"the report took {report:.1f} s of computing")
    assert held[-1] - held[0] < 50
    assert most - held[-1] < 1000


# A run directory of many frames, written and judged as `sample` does it, in a process whose memory is watched.
LONG = """
    import sys, time
    from pathlib import Path
    import torch
    from timewarp import output
    from timewarp.assemble import judging, reporting
    from timewarp.assemble.sample import Tally
    from timewarp.md.system import prepare
    from timewarp.output import RunDirectory
    from timewarp.settings import SampleSettings

    def held(word):
        lines = open("/proc/self/status").read().splitlines()
        return int(next(line for line in lines if line.startswith(word)).split()[1]) / 1024

    pdb, out = sys.argv[1], Path(sys.argv[2])
    frames, judging.MOST, chains = map(int, sys.argv[3:])
    output._BUFFER = 1 << 20
    prepared, rng = prepare(pdb), torch.Generator().manual_seed(1)
    x = torch.as_tensor(prepared.positions, dtype=torch.float32)
    shaken = x + 0.005 * torch.randn(1000, *x.shape, generator=rng)
    settings = SampleSettings(pdb=Path(pdb), out=out, steps=1, chains=chains)
    for count in (4 * judging.MOST // chains, frames):
        at, began = [], time.process_time()
        with RunDirectory.open(out / str(count), {}) as run:
            reporting.begin(run, prepared, chains)
            for step in range(count):
                i = torch.randint(1000, (chains,), generator=rng)
                run.append(step, shaken[i], -1.0 * i, i % 2)
                if step in (count // 10, count - 1):
                    at.append(held("VmRSS"))
            run.save({}, rng, {})
            appended = time.process_time() - began
            report = reporting.finish(settings, run, prepared, exact=True, tally=Tally(count, count, count // 2))
        took = time.process_time() - began - appended
        size = (out / str(count) / "report.html").stat().st_size
        print(held("VmHWM"), report["frames"], len(report["notices"]), report["ess"]["min"], *at, appended, took, size)
"""


def long(folder, frames, looked, chains=1):
    words = [str(peptide_path("AA")), str(folder), str(frames), str(looked), str(chains)]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(LONG), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [[float(w) for w in row.split()] for row in done.stdout.splitlines()]


def test_a_long_run_is_judged_without_holding_all_of_it(tmp_path):
    frames, looked = 40_000, 1000
    (early, *_), (late, count, notices, least, *_) = long(tmp_path, frames, looked)
    assert (count, notices) == (frames, 1)  # which says what was left out
    assert 0.5 * looked < least < 2 * looked
    assert late - early < 12  # all frames are 11, their rows 20, both held more than once


@pytest.mark.long
def test_a_million_frames_are_written_and_judged_in_bounded_memory(tmp_path):
    """Prints the memory of 10 chains at a tenth of their frames and at the end, the most, and what a report takes.

    The frames are made up, so that this is what the files and the report hold, and takes minutes.
    """
    rows = long(tmp_path, 100_000, 20_000, chains=10)
    for most, count, _, _, early, late, appended, took, size in rows:
        print(
            f"10 x {count:.0f} frames: {early:.0f} MB at a tenth, {late:.0f} MB at the end, {most:.0f} MB at most with "
            f"the report, which took {took:.1f} s and has {size / 1e6:.1f} MB; {appended:.1f} s to write the frames"
        )
    assert rows[1][5] - rows[1][4] < 50
    assert rows[1][0] - rows[0][0] < 50  # of which the report looks at as many, whatever the length
