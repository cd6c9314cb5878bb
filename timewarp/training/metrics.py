"""The table of a training run: a row a report, in a file that any program can plot."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Metrics:
    """A CSV file with fixed columns; what a row does not say is left empty.

    Args:
        path: of the file; rows that it holds are kept.
        columns: their names; `step` has to be among them.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, list(columns)

    def cut(self, step: int) -> None:
        """Drop the rows after `step`, which a run that died has written, and take up new columns."""
        rows = [row for row in self.rows() if int(row["step"]) <= step]
        half = self.path.with_name(f".{self.path.name}.tmp")
        with half.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(half, self.path)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="", extrasaction="ignore").writerow(row)

    def rows(self) -> list[dict[str, str]]:
        """All rows, as text; none if there is no file."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))
