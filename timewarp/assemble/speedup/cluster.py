"""All methods through dask: a task a peptide and chain block, on workers of this machine or of a cluster.

Results are files: a block is finished when its record has the name that it should have, and whoever is asked for it
again finds it. So a worker that dies takes nothing with it but the block it was at, which another does again.
The directory of the results and the cache of references have to be on a file system that all workers see.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from timewarp.assemble.speedup.blocks import blocks, left, reference, row_of
from timewarp.assemble.speedup.book import Book
from timewarp.assemble.speedup.job import REFERENCE, Job
from timewarp.assemble.speedup.preparation import Named, target_of
from timewarp.assemble.speedup.processes import Halted, together
from timewarp.assemble.speedup.record import Record
from timewarp.settings import Progress, RaceSettings, SettingsError, Stop

POLL = 0.2  # s
PATIENCE = 20.0  # s, for a scheduler to answer
CACHE = "TIMEWARP_CACHE"
Referred = tuple[str, list[str], float]


@dataclass(frozen=True)
class Tasks:
    """What the workers do.

    Attributes:
        refer: a job that makes a reference -> the fastest platform of OpenMM, notices, seconds.
        block: a job, what `refer` gave -> seconds; its record is in its place.
        judge: a name, the jobs of a method, their seconds -> row, curves, seconds of one worker in all.
    """

    refer: Callable[..., Referred]
    block: Callable[..., float]
    judge: Callable[..., tuple[dict, dict, float]]


def spread(
    settings: RaceSettings,
    peptides: Sequence[Named],
    book: Book,
    progress: Progress,
    stop: Stop,
    tasks: Tasks | None = None,
) -> None:
    """Fill the book; what fails is told to it.

    Args:
        tasks: others than those that measure.

    Raises:
        Halted: if asked to stop.
        SettingsError: if there is no dask, or no such scheduler.
    """
    with _client(settings) as client:
        progress(0.0, f"dask: {client.dashboard_link or client}")
        waiting: dict[Any, tuple[str, str]] = {}
        for peptide in peptides:
            if methods := book.left(peptide.name):
                book.pace.expect(REFERENCE)
                waiting |= _submitted(client, settings, peptide, methods, tasks or Tasks(refer, block, judge))
        began = {future: time.monotonic() for future in waiting}
        while waiting:
            if stop():
                client.cancel(list(waiting))
                raise Halted
            for future in [future for future in waiting if future.done()]:
                name, method = waiting.pop(future)
                seconds = _spent(future, time.monotonic() - began[future])
                if future.status != "finished":
                    book.fail(name, method, future.exception() or RuntimeError(future.status), seconds)
                elif method == REFERENCE:
                    platform, notices, _ = future.result()
                    book.refer(name, platform, notices, seconds)
                else:
                    row, curves, _ = future.result()
                    book.add(row, curves, seconds)
                    shutil.rmtree(blocks(settings, _named(peptides, name), method)[0].folder, ignore_errors=True)
            time.sleep(POLL)


def _spent(future: Any, otherwise: float) -> float:
    """Seconds of one worker."""
    return float(future.result()[-1]) if future.status == "finished" else otherwise


def _named(peptides: Sequence[Named], name: str) -> Named:
    return next(peptide for peptide in peptides if peptide.name == name)


def _submitted(
    client, settings: RaceSettings, peptide: Named, methods: Sequence[str], tasks: Tasks
) -> dict[Any, tuple[str, str]]:
    """The futures of a peptide's reference and of its rows."""
    made = uuid4().hex[:8]  # keys of another call mean other files
    cache = os.environ.get(CACHE)
    job = reference(settings, peptide)
    first = client.submit(tasks.refer, job, cache, key=f"reference-{peptide.name}-{made}", priority=10)
    futures = {first: (peptide.name, REFERENCE)}
    for method in methods:
        jobs = blocks(settings, peptide, method)
        parts = [
            client.submit(tasks.block, one, first, cache, key=f"{peptide.name}-{method}-{number}-{made}")
            for number, one in enumerate(jobs)
        ]
        row = client.submit(tasks.judge, peptide.name, jobs, parts, cache, key=f"row-{peptide.name}-{method}-{made}")
        futures[row] = (peptide.name, method)
    return futures


def refer(job: Job, cache: str | None) -> Referred:
    """The fastest platform, once the reference is in the cache; what is to be told; and the seconds that it took."""
    began = time.monotonic()
    record = Record.read(Path(done(job, cache)))
    return record.facts["platform"], record.facts["notices"], time.monotonic() - began


def block(job: Job, referred: Referred, cache: str | None) -> float:
    """Seconds that a block took; its record is in its place."""
    began = time.monotonic()
    done(replace(job, platform=referred[0]), cache)
    return time.monotonic() - began


def judge(name: str, jobs: Sequence[Job], seconds: Sequence[float], cache: str | None) -> tuple[dict, dict, float]:
    """The row of a method, its curves, and the seconds of one worker for all of it."""
    began = time.monotonic()
    with _environment(cache):
        target = target_of(jobs[0])
    row, curves = row_of(name, jobs, left(jobs), target)
    return row, curves, sum(seconds) + time.monotonic() - began


def done(job: Job, cache: str | None, run: Callable[..., Any] = together) -> str:
    """Do a job, unless its record is there already; a record that is there is whole.

    The process of a worker that died may still write: what it writes has another name.
    """
    final = Path(job.record)
    if not final.exists():
        own = final.with_name(f"{final.stem}-{uuid4().hex[:8]}.safetensors")
        with _environment(cache):
            run([replace(job, record=str(own))], lambda: False, lambda _: None)
        os.replace(own, final)
    return str(final)


@contextmanager
def _environment(cache: str | None) -> Iterator[None]:
    """With the cache of the one who asks, where the worker has none of its own."""
    if cache and CACHE not in os.environ:
        os.environ[CACHE] = cache
    yield


@contextmanager
def _client(settings: RaceSettings) -> Iterator[Any]:
    """Of the scheduler asked for, or of a cluster in this machine that ends with this."""
    try:
        import dask
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise SettingsError("--workers and --dask need dask: pip install 'timewarp-md[cluster]'") from error
    if settings.dask:
        try:
            client = Client(settings.dask, timeout=PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            raise SettingsError(f"--dask: expected a scheduler, found none at {settings.dask}: {error}") from error
        try:
            yield client
        finally:
            client.close()
        return
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),  # looks at every thread each 10 ms
        LocalCluster(
            n_workers=settings.workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
