"""The processes of a method: one a core, waited for, and ended when asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from timewarp.assemble.speedup.job import Job
from timewarp.assemble.speedup.record import Record
from timewarp.settings import Stop

PATIENCE = 20.0  # times its seconds, and as many minutes, is what a process may take in all
POLL = 0.1  # s
# dask sets it for its workers: what torch frees goes back to the system at once, and takes up half of the time
RETURNED = "MALLOC_TRIM_THRESHOLD_"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS", "NUMBA_NUM_THREADS")


class Halted(Exception):
    """Asked to stop before the method was over."""


class MethodFailed(RuntimeError):
    """A process of a method failed; the message is what it said."""


def together(jobs: Sequence[Job], stop: Stop, told: Callable[[float], None]) -> list[Record]:
    """Run the jobs side by side from now on, one thread each, and return what they leave.

    Args:
        jobs: of one method.
        stop: whether to end them and give up.
        told: gets the seconds since they began, now and then.

    Raises:
        Halted: if `stop` said so; no process is left.
        MethodFailed: if a process failed, or takes much longer than its time.
    """
    jobs = [job.now() for job in jobs]
    running = [_started(job) for job in jobs]
    limit = PATIENCE * (jobs[0].seconds + 60)
    try:
        while any(process.poll() is None for process in running):
            if stop():
                raise Halted
            elapsed = jobs[0].elapsed()
            if elapsed > limit:
                raise MethodFailed(f"took longer than {limit:.0f} s")
            if any(process.poll() not in (None, 0) for process in running):
                break
            told(elapsed)
            time.sleep(POLL)
    finally:
        for process in running:
            _ended(process)
    return [_record(process, job) for process, job in zip(running, jobs, strict=True)]


def in_turn(jobs: Sequence[Job], width: int, stop: Stop, told: Callable[[int, Record | MethodFailed], None]) -> None:
    """Run the jobs, `width` at a time; as each ends, tell which, and what it left or why it failed.

    Raises:
        Halted: if `stop` said so; no process is left.
    """
    waiting = list(enumerate(jobs))
    running: list[tuple[int, Job, subprocess.Popen]] = []
    try:
        while waiting or running:
            if stop():
                raise Halted
            while waiting and len(running) < width:
                number, job = waiting.pop(0)
                running.append((number, job := job.now(), _started(job)))
            for one in [one for one in running if one[2].poll() is not None]:
                running.remove(one)
                number, job, process = one
                try:
                    found: Record | MethodFailed = _record(process, job)
                except MethodFailed as error:
                    found = error
                told(number, found)
            time.sleep(POLL)
    finally:
        for _, _, process in running:
            _ended(process)


def _started(job: Job) -> subprocess.Popen:
    """In a session of its own: Ctrl-C is heard here, and it is ended from here."""
    Path(job.record).parent.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in os.environ.items() if name != RETURNED}
    return subprocess.Popen(
        [sys.executable, "-m", "timewarp.assemble.speedup.worker", job.encode()],
        env=own | dict.fromkeys(THREADS, "1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=Path(job.record).with_suffix(".log").open("wb"),
        start_new_session=True,
    )


def _ended(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
    process.wait()


def _record(process: subprocess.Popen, job: Job) -> Record:
    if process.returncode > 0:
        raise MethodFailed(_said(job, process.returncode))
    if process.returncode:
        raise MethodFailed(f"a process was ended by signal {-process.returncode}")
    return Record.read(Path(job.record))


def _said(job: Job, status: int) -> str:
    error = Path(job.record).with_suffix(".error")
    if error.exists():
        return error.read_text()
    lines = Path(job.record).with_suffix(".log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"ended with status {status}"
