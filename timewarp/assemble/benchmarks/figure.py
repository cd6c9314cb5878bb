"""How the cost of an energy grows: fitted exponents, and a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

INDEPENDENT = 64  # batch size from which the cost of a call is that of its configurations


def exponents(rows: list[dict], curves: list[dict]) -> dict[str, float]:
    """The slopes of log(cost) over log(atoms) and over log(batch size); what cannot be fitted is left out."""
    found = {}
    for gradient, what in ((False, "energy"), (True, "energy and forces")):
        points = _by_atoms(rows, "gradient_" if gradient else "")
        if len({atoms for atoms, _ in points}) > 1:
            found[f"cost of {what}: atoms to the power"] = _slope(*zip(*points))
        slopes = [
            _slope(*zip(*kept))
            for curve in curves
            if curve["gradient"] == gradient
            and len(kept := [(b, b * s) for b, s in _points(curve) if b >= INDEPENDENT]) > 1
        ]
        if slopes:
            found[f"cost of {what}: batch size to the power"] = float(np.median(slopes))
    return found


def draw(rows: list[dict], curves: list[dict], path: Path) -> None:
    """Cost of one configuration against atoms and against batch size, as a PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    fitted = exponents(rows, curves)
    for prefix, what, colour in (("", "energy", "#2563a8"), ("gradient_", "energy and forces", "#d9711c")):
        for side, mark in (("", "o-"), ("openmm_", "s--")):
            points = _by_atoms(rows, prefix, side)
            power = fitted.get(f"cost of {what}: atoms to the power")
            label = f"OpenMM, {what}" if side else what + (f", power {power:.2f}" if power is not None else "")
            left.plot(*zip(*points), mark, color=colour, label=label, markersize=4)
        for curve in curves:
            if curve["gradient"] == bool(prefix):
                right.plot(curve["batches"], [1e6 * s for s in curve["seconds"]], "o-", color=colour, markersize=3)
                right.annotate(str(curve["atoms"]), (curve["batches"][-1], 1e6 * curve["seconds"][-1]), fontsize=7)
        power = fitted.get(f"cost of {what}: batch size to the power")
        right.plot([], [], color=colour, label=what + (f", power {power:.2f}" if power is not None else ""))
    left.set_xlabel("atoms")
    right.set_xlabel("configurations a call (at the lines: atoms)")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylabel("µs a configuration")
        axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)


def _by_atoms(rows: list[dict], prefix: str, side: str = "") -> list[tuple[float, float]]:
    """(Atoms, µs a configuration) of the float32 rows, compiled where there is a compiler, by size."""
    modes = {row["mode"] for row in rows}
    mode = "compiled" if "compiled" in modes else "eager"
    kept = [row for row in rows if (row["dtype"], row["mode"]) == ("float32", mode)]
    return sorted((row["atoms"], 1e6 / row[f"{side}{prefix}configurations_per_second"]) for row in kept)


def _points(curve: dict) -> list[tuple[int, float]]:
    return list(zip(curve["batches"], curve["seconds"]))


def _slope(x, y) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
