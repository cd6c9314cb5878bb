"""`timewarp bench --compare`: several benchmarks side by side on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from timewarp.analysis.page import details, figure, grid, page, paragraph, section, table
from timewarp.analysis.speedups import by_length, compared
from timewarp.assemble.speedup.table import HEAD, MEDIANS, cells_of, middle, rate, times
from timewarp.atomic import write_atomically
from timewarp.settings import CompareSettings, Progress, Report, SettingsError, Stop

Rows = Sequence[Mapping[str, Any]]
NEEDED = {"peptide", "method", "ess_per_second", "seconds", "speedup", "gates", "missed_basins"}
PAGE = "compare.html"


def compare(settings: CompareSettings, progress: Progress, stop: Stop) -> Report:
    """Write `compare.html` into `out`, a page that needs nothing but itself.

    Raises:
        SettingsError: if a file is not a `bench.json`.
    """
    benches = labelled(settings.files)
    settings.out.mkdir(parents=True, exist_ok=True)
    write_atomically(settings.out / PAGE, dashboard(benches).encode())
    return {"message": f"{len(benches)} benchmarks in {settings.out / PAGE}"}


def labelled(files: Sequence[Path]) -> dict[str, Rows]:
    """The rows of each file, by the shortest end of its path that tells it from the others.

    Raises:
        SettingsError: if a file is not a `bench.json`.
    """
    found: dict[str, Rows] = {}
    for file in files:
        parts = file.resolve().with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "bench" and len(parts) > 1 else parts
        length = 1
        while "/".join(parts[-length:]) in found and length < len(parts):
            length += 1
        name = "/".join(parts[-length:])
        found[name if name not in found else f"{name} {len(found)}"] = read(file)
    return found


def read(file: Path) -> Rows:
    """The rows of a `bench.json`.

    Raises:
        SettingsError: if it is none.
    """
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"--compare: expected a bench.json, got {file}: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and r.keys() >= NEEDED for r in rows):
        raise SettingsError(f"--compare: expected the rows of a bench.json, got others in {file}")
    return rows


def dashboard(benches: Mapping[str, Rows]) -> str:
    """The page: who was measured where, speed-ups side by side, exploration, and all rows folded away."""
    methods = list(dict.fromkeys(row["method"] for rows in benches.values() for row in rows))
    peptides = list(dict.fromkeys(row["peptide"] for rows in benches.values() for row in rows))
    files = [
        (name, rows[0].get("machine", "?"), f"{len({r['peptide'] for r in rows})}", f"{rows[0].get('budget', 0):g} s",
         f"{max(r.get('load', 0.0) for r in rows):.1f}")
        for name, rows in benches.items()
    ]  # fmt: skip
    drawn = [m for m in methods if any(r["method"] == m and r["speedup"] for rows in benches.values() for r in rows)]
    figures = [figure(compared(benches, m), f"speed-up of {m} by peptide") for m in drawn if not m.startswith("md-")]
    figures += [figure(by_length(rows, name), f"ESS a second against length, {name}") for name, rows in benches.items()]
    parts = [
        f"<h1>{escape('Effective samples a second, ' + ' and '.join(benches))}</h1>",
        paragraph(
            "A speed-up is against the fastest OpenMM MD on the same machine. >=: that MD failed a gate (R-hat, "
            "basins, populations), and the most that it can have reached (<) stands for it. In brackets: the method "
            "itself failed a gate; its speed-up is 0."
        ),
        section(
            "What was measured", table(("benchmark", "machine", "peptides", "a method", "load"), files, words=True)
        ),
        section("Medians", table(("method", *benches), _medians(benches, methods))),
        section("Speed-up over the fastest MD", _side_by_side(benches, peptides, methods, "speedup")),
        section("Speed-up over MD as published", _side_by_side(benches, peptides, methods, "speedup_paper")),
        section("Effective samples a second", _rates(benches, peptides, methods)),
        section("Seconds until all states were seen", _states(benches, peptides, methods)),
        section("Figures", grid(figures)),
        section("All rows", *[details(name, _rows(rows)) for name, rows in benches.items()]),
    ]
    return page("Benchmark of samplers", parts)


def _medians(benches, methods):
    rows = []
    for method in methods:
        if method.startswith("md-"):
            continue
        for name, told in MEDIANS.items():
            found = [middle(bench, method, name) for bench in benches.values()]
            if any(found):
                rows.append((f"{method}, {told}", *(text or "-" for text in found)))
    return rows


def _cells(benches, peptides, methods, cell):
    rows = []
    for peptide in peptides:
        for method in methods:
            found = [
                next((cell(r) for r in bench if (r["peptide"], r["method"]) == (peptide, method)), "-")
                for bench in benches.values()
            ]
            if any(text != "-" for text in found):
                rows.append((f"{peptide}, {method}", *found))
    return table(("peptide, method", *benches), rows)


def _side_by_side(benches, peptides, methods, name):
    methods = [method for method in methods if name != "speedup" or not method.startswith("md-")]
    return _cells(benches, peptides, methods, lambda row: times(row, name))


def _rates(benches, peptides, methods):
    return _cells(benches, peptides, methods, rate)


def _states(benches, peptides, methods):
    return _cells(
        benches,
        peptides,
        methods,
        lambda row: "never" if row.get("states_seconds") is None else f"{row['states_seconds']:.1f}",
    )


def _rows(rows: Rows) -> str:
    cells = [(row["peptide"], *cells_of(row).values(), "; ".join(row["gates"])) for row in rows]
    return table(("peptide", *HEAD, "gates failed"), cells)
