"""The curves of a training run: loss, acceptance on held-out peptides and learning rate against the step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PANELS = (  # title, columns
    ("Loss (nats)", ("loss",)),
    ("Its parts (nats)", ("torsion", "stiff", "transition")),
    ("Acceptance on held-out peptides", ("validation",)),
    ("Own samples", ("log_ratio", "entropy")),
    ("Norm of the gradient", ("norm",)),
    ("Learning rate", ("rate",)),
)


def plot_training(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Draw the table of a training run into a PNG file; a panel without numbers is left out.

    Args:
        rows: as `csv.DictReader` gives them, with a column `step`.
        path: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = []
    for title, columns in PANELS:
        series = {name: [(int(row["step"]), float(row[name])) for row in rows if row.get(name)] for name in columns}
        series = {name: points for name, points in series.items() if points}
        if series:
            panels.append((title, series))
    figure = Figure(figsize=(9, 2.6 * max(1, (len(panels) + 1) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, series) in enumerate(panels, 1):
        axes = figure.add_subplot((len(panels) + 1) // 2, 2, place)
        for name, points in series.items():
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else "", label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e7eaee", linewidth=0.6)
        if len(series) > 1:
            axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
