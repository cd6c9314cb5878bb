"""All methods on this machine: references first, one a core; then one method after another, each with all cores."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

from timewarp.assemble.speedup.blocks import blocks, cores_of, reference, row_of
from timewarp.assemble.speedup.book import Book
from timewarp.assemble.speedup.job import REFERENCE
from timewarp.assemble.speedup.preparation import Named, target_of
from timewarp.assemble.speedup.processes import Halted, MethodFailed, in_turn, together
from timewarp.assemble.speedup.record import Record
from timewarp.settings import Progress, RaceSettings, Stop


def alone(settings: RaceSettings, peptides: Sequence[Named], book: Book, progress: Progress, stop: Stop) -> None:
    """Fill the book; what fails is told to it.

    Raises:
        Halted: if asked to stop.
    """
    peptides = [peptide for peptide in peptides if book.left(peptide.name)]
    platforms = _referred(settings, peptides, book, stop)
    for peptide in peptides:
        if peptide.name not in platforms:
            continue
        target = target_of(reference(settings, peptide))
        for method in book.left(peptide.name):
            if stop():
                raise Halted
            began = time.monotonic()
            jobs = blocks(settings, peptide, method, platforms[peptide.name])
            shutil.rmtree(jobs[0].folder, ignore_errors=True)

            def told(elapsed: float, name: str = f"{peptide.name}, {method}") -> None:
                progress(book.pace.share, f"{name}, {elapsed:.0f} s")

            try:
                records = together(jobs, stop, told)
                row, curves = row_of(peptide.name, jobs, records, target)
            except (MethodFailed, ValueError, ArithmeticError) as error:
                book.fail(peptide.name, method, error, time.monotonic() - began)
            else:
                book.add(row, curves, time.monotonic() - began)
            shutil.rmtree(jobs[0].folder, ignore_errors=True)


def _referred(settings: RaceSettings, peptides: Sequence[Named], book: Book, stop: Stop) -> dict[str, str]:
    """See that all references are there; the fastest platform of OpenMM for each peptide."""
    found: dict[str, str] = {}
    jobs = [reference(settings, peptide) for peptide in peptides]
    width, began = cores_of(settings), time.monotonic()
    for _ in jobs:
        book.pace.expect(REFERENCE)

    def told(number: int, record: Record | MethodFailed) -> None:
        name = peptides[number].name
        spent = (time.monotonic() - began) * min(width, len(jobs)) / (book.pace.done + 1)
        if isinstance(record, MethodFailed):
            book.fail(name, REFERENCE, record, spent / width)
            return
        found[name] = record.facts["platform"]
        book.refer(name, found[name], record.facts["notices"], spent / width)

    in_turn(jobs, width, stop, told)
    return found
