"""Blocks of chains on dask workers: one is killed in the middle, and nothing is lost and nothing done twice."""

import os
import signal
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from timewarp.assemble.speedup import cluster
from timewarp.assemble.speedup.blocks import blocks
from timewarp.assemble.speedup.book import Book
from timewarp.assemble.speedup.job import Job
from timewarp.assemble.speedup.pace import Pace
from timewarp.assemble.speedup.preparation import Named
from timewarp.assemble.speedup.processes import MethodFailed
from timewarp.assemble.speedup.record import Record
from timewarp.settings import Device, RaceSettings

from . import toy

METHODS = ["md-tuned", "tempering", "exchange"]
DURATION = 0.6  # s of a block


def note(job, word):
    with (Path(job.record).parents[3] / "log").open("a") as file:
        file.write(f"{word} {job.method} {Path(job.pdb).stem} {job.seed} {os.getpid()}\n")


def run(jobs, stop, told):
    """In place of a process that samples: half of a record, then all of it."""
    (job,) = jobs
    note(job, "begun")
    path = Path(job.record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    time.sleep(DURATION)
    Record(np.zeros((1, 2, 1, 3)), np.zeros((1, 2)), np.arange(2.0), 0.0, 2.0, {"seed": job.seed}).write(path)
    note(job, "over")


def refer(job, cache):
    return "CPU", ["CUDA was left out"], 0.1


def block(job, referred, cache):
    assert referred == ("CPU", ["CUDA was left out"], 0.1)
    cluster.done(job, cache, run)
    return DURATION


def judge(name, jobs, seconds, cache):
    seeds = [Record.read(Path(job.record)).facts["seed"] for job in jobs]
    return toy.row(name, jobs[0].method, seeds=seeds), {}, sum(seconds)


@pytest.fixture
def asked(tmp_path):
    settings = RaceSettings(
        peptides=("AA", "GG"), out=tmp_path / "out", methods=tuple(METHODS), cores=2, workers=2, device=Device.CPU
    )
    settings.out.mkdir()
    peptides = [Named(name, tmp_path / f"{name}.pdb", None) for name in settings.peptides]
    book = Book(settings.out, list(settings.peptides), METHODS, Pace(1.0), lambda *_: None)
    return settings, peptides, book


def log(settings):
    path = settings.out / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_done_twice(asked, monkeypatch):
    settings, peptides, book = asked
    told = []
    monkeypatch.setattr(book, "say", told.append)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    killed = []

    def stop():
        lines = log(settings)
        over = {tuple(words[1:]) for words in lines if words[0] == "over"}
        at_work = [words for words in lines if words[0] == "begun" and tuple(words[1:]) not in over]
        if not killed and over and at_work:
            killed.append(at_work[-1][1:4])
            os.kill(int(at_work[-1][4]), signal.SIGKILL)
        return False

    try:
        cluster.spread(settings, peptides, book, lambda *_: None, stop, cluster.Tasks(refer, block, judge))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert killed
    for name in settings.peptides:
        assert f"{name}: the reference is there; MD on CPU; CUDA was left out" in told
    assert book.failed == {}
    wanted = [(p, m) for p in settings.peptides for m in METHODS]
    assert [(row["peptide"], row["method"]) for row in book.rows] == wanted
    assert all(row["seeds"] == [0, 1] for row in book.rows)
    counts = {
        word: Counter(tuple(words[1:4]) for words in log(settings) if words[0] == word) for word in ("begun", "over")
    }
    everything = {(m, p, str(k)) for p, m in wanted for k in range(2)}
    assert set(counts["over"]) == everything
    assert set(counts["over"].values()) == {1}
    assert {name for name, count in counts["begun"].items() if count > 1} == {tuple(killed[0])}
    again = Book(settings.out, list(settings.peptides), METHODS, Pace(1.0), lambda *_: None)
    assert [again.left(name) for name in settings.peptides] == [[], []]
    assert again.rows == book.rows


def test_a_block_whose_record_is_there_is_not_done_again(asked):
    settings, peptides, _ = asked
    job, other = blocks(settings, peptides[0], "md-tuned", "CPU")
    assert isinstance(job, Job)
    cluster.done(job, None, run)
    cluster.done(job, None, run)
    assert [words[0] for words in log(settings)] == ["begun", "over"]
    assert Record.read(Path(job.record)).facts == {"seed": 0}

    def torn(jobs, stop, told):
        Path(jobs[0].record).write_bytes(b"half")
        raise MethodFailed("killed")

    with pytest.raises(MethodFailed):
        cluster.done(other, None, torn)
    assert not Path(other.record).exists()
    cluster.done(other, None, run)
    assert Record.read(Path(other.record)).facts == {"seed": 1}


def test_a_scheduler_that_is_not_there_is_an_error_of_one_line(asked, monkeypatch):
    settings, peptides, book = asked
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    where = RaceSettings(peptides=("AA",), out=settings.out, dask="tcp://127.0.0.1:1", device=Device.CPU)
    with pytest.raises(import_module("timewarp.settings").SettingsError, match="expected a scheduler, found none"):
        cluster.spread(where, peptides, book, lambda *_: None, lambda: False)


def test_the_rest_of_a_run_takes_as_long_as_its_parts_did():
    pace = Pace(30.0, side_by_side=2)
    for kind in ("md", "md", "sample", "sample"):
        pace.expect(kind)
    assert (pace.left(), pace.share, pace.done, pace.total) == (60.0, 0.0, 0, 4)
    pace.finished("md", 50.0)
    assert pace.left() == (50.0 + 2 * 30.0) / 2
    assert pace.share == pytest.approx(50 / 160)
    for kind in ("md", "sample", "sample"):
        pace.finished(kind, 10.0)
    assert (pace.left(), pace.share, pace.done) == (0.0, 1.0, 4)
