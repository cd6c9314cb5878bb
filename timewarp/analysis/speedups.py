"""Figures of a benchmark of samplers: pictures for its directory, and panels for the page that compares several.

A row is what `bench.json` holds for a method and a peptide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timewarp.analysis.plots import COLOURS, _svg

Rows = Sequence[Mapping[str, Any]]
Curves = Mapping[str, Mapping[str, Mapping[str, Any]]]


def draw(rows: Rows, curves: Curves, out: Path) -> None:
    """Write speedup.png, length.png, autocorrelation.png, trace.png and states.png; one without content is left out.

    Args:
        rows: of all peptides and methods.
        curves: by peptide and method, `autocorrelation` (seconds, value) and `trace` (seconds, slow).
        out: the directory.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colours = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(methods)}
    if any(row.get("speedup") for row in rows if not row["method"].startswith("md-")):
        _png(out / "speedup.png", lambda figure: _speedups(figure, rows, colours), (8.0, 4.0))
    _png(out / "length.png", lambda figure: _lengths(figure, rows, colours), (8.0, 4.5))
    peptides = [name for name, found in curves.items() if any(found.values())]
    if peptides:
        size = (8.0, 1.0 + 2.2 * len(peptides))
        _png(out / "autocorrelation.png", lambda figure: _correlations(figure, peptides, curves, colours), size)
        tall = sum(1 for name in peptides for found in curves[name].values() if found)
        _png(out / "trace.png", lambda figure: _traces(figure, peptides, curves, colours), (8.0, 1.0 + 0.9 * tall))
    _png(out / "states.png", lambda figure: _states(figure, rows, colours), (8.0, 4.0))


def by_length(rows: Rows, title: str) -> str:
    """ESS a second against the number of atoms, as SVG text."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colours = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(methods)}

    def make(figure):
        _lengths(figure, rows, colours)
        figure.axes[0].set_title(title)

    return _svg(make)


def compared(benches: Mapping[str, Rows], method: str) -> str:
    """The speed-up of one method on each peptide, a bar for each benchmark, as SVG text."""
    found = {
        name: {r["peptide"]: r for r in rows if r["method"] == method and r["speedup"] is not None}
        for name, rows in benches.items()
    }
    best = {p: max(f[p]["speedup"] for f in found.values() if p in f) for f in found.values() for p in f}
    peptides = sorted(best, key=lambda p: -best[p])

    def make(figure):
        axes = figure.add_subplot()
        width = 0.8 / max(len(found), 1)
        for k, (name, mine) in enumerate(found.items()):
            heights = [mine[p]["speedup"] if p in mine else 0.0 for p in peptides]
            places = np.arange(len(peptides)) + (k - (len(found) - 1) / 2) * width
            axes.bar(places, heights, width, color=COLOURS[k % len(COLOURS)], label=name)
        axes.set_xticks(range(len(peptides)), peptides, rotation=90 if len(peptides) > 8 else 0)
        axes.set(title=method, ylabel="speed-up over the fastest MD")
        _logarithmic(axes, list(best.values()))
        figure.legend(loc="outside lower center", ncols=2)

    return _svg(make)


def _speedups(figure, rows, colours):
    """Bars sorted by the best speed-up of each peptide; hatched where they are lower bounds."""
    methods = [m for m in colours if not m.startswith("md-") and any(r["method"] == m and r["speedup"] for r in rows)]
    table = {(r["peptide"], r["method"]): r for r in rows if r.get("speedup")}
    best = {p: max((r["speedup"] for (q, _), r in table.items() if q == p), default=0.0) for p in _peptides(rows)}
    peptides = sorted(best, key=lambda p: -best[p])
    axes, width = figure.add_subplot(), 0.8 / max(len(methods), 1)
    for k, method in enumerate(methods):
        for place, peptide in enumerate(peptides):
            row = table.get((peptide, method))
            if row:
                hatch = "//" if row["speedup_at_least"] else None
                left = place + (k - (len(methods) - 1) / 2) * width
                axes.bar(left, row["speedup"], width, color=colours[method], hatch=hatch, edgecolor="white")
        axes.bar(0, 0, color=colours[method], label=method)
    axes.axhline(1, color="#2b3038", lw=0.8)
    axes.set_xticks(range(len(peptides)), peptides, rotation=90 if len(peptides) > 8 else 0)
    axes.set(title="Speed-up over the fastest OpenMM MD (hatched: at least)", ylabel="times")
    _logarithmic(axes, list(best.values()))
    figure.legend(loc="outside right upper")


def _lengths(figure, rows, colours):
    """Points of ESS a second against atoms; hollow where a gate was failed."""
    axes = figure.add_subplot()
    for method, colour in colours.items():
        mine = [r for r in rows if r["method"] == method and r["ess_per_second"]]
        for failed, face in ((False, colour), (True, "none")):
            points = [(r["atoms"], r["ess_per_second"]) for r in mine if bool(r["gates"]) == failed]
            if points:
                axes.scatter(*zip(*points, strict=True), s=26, facecolors=face, edgecolors=colour)
        if mine:
            axes.scatter([], [], s=26, color=colour, label=method)
    axes.set(title="Hollow: a gate was failed", xlabel="atoms", ylabel="ESS a second")
    rates = [r["ess_per_second"] for r in rows if r["ess_per_second"]]
    _logarithmic(axes, rates)
    if rates:
        figure.legend(loc="outside right upper")


def _correlations(figure, peptides, curves, colours):
    for axes, peptide in zip(figure.subplots(len(peptides), 1, squeeze=False)[:, 0], peptides, strict=True):
        for method, found in curves[peptide].items():
            if found:
                one = found["autocorrelation"]
                axes.plot(one["seconds"], one["value"], color=colours.get(method), label=method, lw=1.2)
        axes.axhline(0, color="#9aa2ad", lw=0.6)
        axes.set(title=peptide, ylabel="TIC 0", xscale="symlog", ylim=(-0.5, 1.05))
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.axes[-1].set_xlabel("wall-clock seconds; autocorrelation about the mean of what each method saw")


def _traces(figure, peptides, curves, colours):
    shown = [(p, m, found["trace"]) for p in peptides for m, found in curves[p].items() if found]
    for axes, (peptide, method, trace) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        axes.plot(trace["seconds"], trace["slow"], ".-", ms=2, lw=0.5, color=colours.get(method))
        axes.set_ylabel(f"{peptide}\n{method}", fontsize=7, rotation=0, ha="right", va="center")
        axes.tick_params(labelsize=7)
        same = [value for p, _, other in shown if p == peptide for value in other["slow"]]
        axes.set_ylim(min(same) - 0.1, max(same) + 0.1)
    figure.axes[0].set_title("TIC 0 of one chain, where its method was")
    figure.axes[-1].set_xlabel("wall-clock seconds")


def _states(figure, rows, colours):
    """Time until every reference state was seen; an arrow where that never was."""
    axes, peptides = figure.add_subplot(), _peptides(rows)
    width = 0.8 / max(len(colours), 1)
    for k, (method, colour) in enumerate(colours.items()):
        for place, peptide in enumerate(peptides):
            row = next((r for r in rows if (r["peptide"], r["method"]) == (peptide, method)), None)
            if row is not None:
                seen = row["states_seconds"]
                left = place + (k - (len(colours) - 1) / 2) * width
                axes.plot(
                    left, seen or row["seconds"], "o" if seen else "^", color=colour, mfc=colour if seen else "none"
                )
        axes.plot([], [], "o", color=colour, label=method)
    axes.set_xticks(range(len(peptides)), peptides, rotation=90 if len(peptides) > 8 else 0)
    axes.set(title="Until all states were seen (triangle: never)", ylabel="wall-clock seconds", yscale="log")
    figure.legend(loc="outside right upper")


def _peptides(rows) -> list[str]:
    return list(dict.fromkeys(row["peptide"] for row in rows))


def _logarithmic(axes, values) -> None:
    positive = [value for value in values if value and value > 0]
    if positive and max(positive) > 5 * min(positive):
        axes.set_yscale("log")


def _png(path: Path, make: Callable[[Any], None], size: tuple[float, float]) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from timewarp.analysis.plots import STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        make(figure)
        figure.savefig(path, dpi=120)
