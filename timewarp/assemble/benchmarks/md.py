"""`timewarp bench --md`: aggregate ns/day of the batched dynamics against OpenMM's, one process a core."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from timewarp.assemble.bench_md import md_speed
from timewarp.assemble.directory import claimed
from timewarp.atomic import write_atomically
from timewarp.settings import BenchSettings, Progress, Report, Stop

SECONDS = 10.0  # of each side
ROWS = "md.json"
BUSY = 0.9  # share of its cores below which a side was disturbed


def bench_md(settings: BenchSettings, progress: Progress, stop: Stop) -> Report:
    """Measure each peptide and leave `md.json` with its rows; `resume` goes on with those that have none yet.

    Raises:
        InputError: if a sequence cannot be built.
        DirectoryRefused: if `out` cannot serve.
    """
    with claimed(settings.out, (ROWS,), settings.resume):
        path = settings.out / ROWS
        rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        left = [name for name in settings.sequences if name not in {row["peptide"] for row in rows}]
        for number, name in enumerate(left):
            if stop():
                break

            def told(line: str, share: float = number / len(left)) -> None:
                progress(share, line)

            speed = md_speed(
                name,
                settings.seconds or SECONDS,
                settings.device.resolve(),
                settings.threads,
                settings.batch,
                told=told,
            )
            rows.append(speed.row())
            write_atomically(path, (json.dumps(rows, indent=1) + "\n").encode())
    return {"rows": rows, "message": table(rows)}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a peptide."""
    head = ("peptide", "atoms", "processes", "replicas each", "ns/day", "OpenMM ns/day", "ratio", "by processor time")
    names = (
        "peptide", "atoms", "processes", "replicas", "ns_per_day", "openmm_ns_per_day", "ratio",
        "ratio_by_processor_time",
    )  # fmt: skip
    cells = [head, *(tuple(_cell(row[name]) for name in names) for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    if rows:
        one = rows[0]
        lines.append(
            f"batched Langevin dynamics, {one['step_fs']:g} fs, hydrogens of 3 amu, no constraints; OpenMM on its "
            f"fastest platform, {one['openmm_step_fs']:g} fs, bonds to hydrogen rigid, hydrogens of 3 amu; "
            f"{one['device']}"
        )
    low = min((row[name] for row in rows for name in ("share", "openmm_share") if row["device"] == "cpu"), default=1.0)
    if low < BUSY:
        lines.append(
            f"the machine was busy: a side had {low:.0%} of its cores, and the ratio says more of that than of the "
            "two; by processor time it is what it would be without the others"
        )
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
