"""`timewarp bench`: all methods on many peptides, each for the same time, from a list of names to a table."""

from __future__ import annotations

import json
import shutil

from timewarp.assemble.directory import claimed
from timewarp.assemble.speedup.alone import alone
from timewarp.assemble.speedup.blocks import WORK, cores_of
from timewarp.assemble.speedup.book import ROWS, Book
from timewarp.assemble.speedup.methods import METHODS, kind
from timewarp.assemble.speedup.pace import Pace
from timewarp.assemble.speedup.preparation import Named
from timewarp.assemble.speedup.processes import Halted
from timewarp.atomic import write_atomically
from timewarp.claim import compare as matched
from timewarp.resources import checkpoint_path, checkpoints
from timewarp.settings import Progress, RaceSettings, Report, SettingsError, Stop

OPTIONS = "options.json"
BEGIN = 15.0  # s, about what a method takes beside its sampling, until some were seen


def race(settings: RaceSettings, progress: Progress, stop: Stop) -> Report:
    """Measure every method on every peptide, and leave `bench.json`, `curves.json`, `progress.log` and figures.

    Each samples for the same time. What it takes before that is not cut short, and counts in its ESS a second.

    A row is written as soon as it is there; with `resume`, rows that are there stay. A method that fails is told of.

    Raises:
        InputError: if a peptide cannot be read or built, before anything is measured.
        SettingsError: if there is no such method, or no scheduler where one is asked for.
        ResourceMissing: if there is no such checkpoint.
        DirectoryRefused: if `out` cannot serve, or was begun with other options.
        RuntimeError: if nothing could be measured.
    """
    methods = methods_of(settings)
    names = ("seconds", "reference_frames", "reference_seconds", "dynamics_seconds", "temperature", "chains", "seed")
    options = {name: getattr(settings, name) for name in names}
    options |= {"cores": cores_of(settings), "device": settings.device.resolve()}
    with claimed(settings.out, (ROWS, OPTIONS), settings.resume):
        record = settings.out / OPTIONS
        if record.exists():
            matched(settings.out, json.loads(record.read_text()), options)
        peptides = [Named.of(word, settings.out) for word in dict.fromkeys(settings.peptides)]
        write_atomically(record, (json.dumps(options, indent=1) + "\n").encode())
        tasks = settings.workers if settings.workers or settings.dask else None
        pace = Pace(settings.seconds + BEGIN, tasks or 1)
        book = Book(settings.out, [peptide.name for peptide in peptides], methods, pace, progress)
        try:
            if settings.workers or settings.dask:
                from timewarp.assemble.speedup.cluster import spread

                spread(settings, peptides, book, progress, stop)
            else:
                alone(settings, peptides, book, progress, stop)
        except Halted:
            pass
        if not any(book.left(peptide.name) for peptide in peptides):
            shutil.rmtree(settings.out / WORK, ignore_errors=True)
        return book.report()


def methods_of(settings: RaceSettings) -> list[str]:
    """The methods asked for, or all; `sample` once for each checkpoint: those asked for and every Cartesian one.

    Raises:
        SettingsError: if there is no such method.
        ResourceMissing: if there is no such checkpoint.
    """
    cartesian = [path.stem for path in checkpoints() if json.loads(path.read_text()).get("kind") == "cartesian"]
    names = list(dict.fromkeys([*settings.checkpoints, *cartesian]))
    for name in names:
        checkpoint_path(name)
    found = []
    for method in settings.methods or METHODS:
        if kind(method) not in METHODS:
            raise SettingsError(f"--method: expected one of {', '.join(METHODS)}, got {method}")
        several = kind(method) == "sample" and method == "sample"
        found += [f"sample:{name}" for name in names] if several else [method]
    return list(dict.fromkeys(found))
