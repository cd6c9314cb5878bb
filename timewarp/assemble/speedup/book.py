"""The rows of a benchmark, in its directory: each is written as soon as it is there, and never measured again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timewarp.analysis.speedups import draw
from timewarp.assemble.speedup.job import REFERENCE
from timewarp.assemble.speedup.pace import Pace, spelled
from timewarp.assemble.speedup.ranking import ranked
from timewarp.assemble.speedup.table import line, table
from timewarp.atomic import write_atomically
from timewarp.settings import Progress, Report

ROWS, CURVES, LINES = "bench.json", "curves.json", "progress.log"


class Book:
    """What was measured so far, and what is left of it.

    Args:
        out: the directory; rows that are there stay.
        peptides, methods: all that are asked for.
        pace: tells how long the rest takes.
        progress: told a line for all that is finished.
    """

    def __init__(self, out: Path, peptides: Sequence[str], methods: Sequence[str], pace: Pace, progress: Progress):
        self.out, self.peptides, self.methods, self.pace, self.progress = out, peptides, methods, pace, progress
        rows, curves = out / ROWS, out / CURVES
        self.rows: list[dict[str, Any]] = json.loads(rows.read_text()) if rows.exists() else []
        self.curves: dict[str, Any] = json.loads(curves.read_text()) if curves.exists() else {}
        self.failed: dict[str, str] = {}
        for peptide in peptides:
            for method in self.left(peptide):
                pace.expect(method)

    def left(self, peptide: str) -> list[str]:
        """The methods of the peptide that have no row."""
        done = {row["method"] for row in self.rows if row["peptide"] == peptide}
        return [method for method in self.methods if method not in done]

    def refer(self, peptide: str, platform: str, notices: Sequence[str], seconds: float) -> None:
        """The reference of a peptide is there: on which platform MD runs, and what a person should know of that."""
        self.pace.finished(REFERENCE, seconds)
        self.say("; ".join([f"{peptide}: the reference is there", f"MD on {platform}", *notices]))

    def add(self, row: Mapping[str, Any], curves: Mapping[str, Any], seconds: float) -> None:
        """A finished method of a peptide, which took so long in all; another row of the same is not taken."""
        peptide, method = row["peptide"], row["method"]
        if any((r["peptide"], r["method"]) == (peptide, method) for r in self.rows):
            return
        self.rows = ranked(sorted([*self.rows, dict(row)], key=self._place))
        self.curves.setdefault(peptide, {})[method] = curves
        write_atomically(self.out / CURVES, _json(self.curves))
        write_atomically(self.out / ROWS, _json(self.rows))
        self.pace.finished(method, seconds)
        self.say(f"{peptide}, {method}: {line(next(r for r in self.rows if self._is(r, peptide, method)))}")

    def fail(self, peptide: str, method: str, error: Exception, seconds: float) -> None:
        """A method that could not be measured, which is tried again when the run is resumed."""
        self.failed[f"{peptide}, {method}"] = " ".join(str(error).split())
        self.pace.finished(method, seconds)
        self.say(f"{peptide}, {method}: failed: {self.failed[f'{peptide}, {method}']}")

    def say(self, text: str) -> None:
        """A line for the log and for the screen, with what is done and how long the rest takes."""
        share = self.pace.share
        text = f"{text} | {self.pace.done} of {self.pace.total} done, {spelled(self.pace.left())} left"
        with (self.out / LINES).open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self.progress(share, text)

    def report(self) -> Report:
        """Draw the figures and tell all.

        Raises:
            RuntimeError: if nothing could be measured.
        """
        if self.failed and not self.rows:
            name, reason = next(iter(self.failed.items()))
            raise RuntimeError(f"nothing could be measured; {name}: {reason}")
        if self.rows:
            draw(self.rows, self.curves, self.out)
        return {"message": table(self.rows, self.failed)}

    def _place(self, row: Mapping[str, Any]) -> tuple[int, int]:
        return _index(self.peptides, row["peptide"]), _index(self.methods, row["method"])

    @staticmethod
    def _is(row: Mapping[str, Any], peptide: str, method: str) -> bool:
        return (row["peptide"], row["method"]) == (peptide, method)


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1  # of an earlier call: before all others, in their order


def _json(value: Mapping[str, Any] | list) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
