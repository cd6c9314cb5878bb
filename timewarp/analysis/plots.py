"""Figures of the report, each one panel that is legible at a phone's width; every function returns SVG text.

matplotlib is used through its object interface, so that no global state and no display is needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from timewarp.analysis.basins import Population

WIDTH, HEIGHT = 4.0, 3.0  # inches; 384 by 288 CSS pixels
DOTS = 220  # an inch, of what is drawn as an image
POINTS = 1500  # a trace is thinned to this many points a chain
SHOWN = 12  # chains that are drawn, evenly chosen
SPARSE = 300  # below this many frames points say more than a histogram
COLOURS = ("#2563a8", "#d9711c", "#3a8f4d", "#a33b7a", "#7a6a1f", "#1f8a8a", "#8a4fc4", "#c43d3d")
INK = "#2b3038"
STYLE: Any = {
    "svg.hashsalt": "timewarp",  # the same run gives the same bytes
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.edgecolor": "#9aa2ad",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e7eaee",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


def ramachandran(x: np.ndarray, y: np.ndarray, thermal: float, title: str, labels: tuple[str, str]) -> str:
    """Free energy (kJ/mol) over two angles (rad); `thermal` is kT in kJ/mol."""

    def draw(figure):
        axes = figure.add_subplot(aspect="equal")
        _surface(figure, axes, np.degrees(x).ravel(), np.degrees(y).ravel(), thermal, ((-180, 180), (-180, 180)), 60)
        axes.set(xticks=range(-180, 181, 90), yticks=range(-180, 181, 90), title=title)
        axes.set(xlabel=f"{labels[0]} (degrees)", ylabel=f"{labels[1]} (degrees)")

    return _svg(draw)


def plane(x: np.ndarray, y: np.ndarray, thermal: float, title: str, labels: tuple[str, str]) -> str:
    """Free energy (kJ/mol) over two coordinates of any range."""

    def draw(figure):
        axes = figure.add_subplot()
        _surface(figure, axes, x.ravel(), y.ravel(), thermal, (_range(x), _range(y)), 60)
        axes.set(title=title, xlabel=labels[0], ylabel=labels[1])

    return _svg(draw)


def profile(values: np.ndarray, thermal: float, title: str, label: str, angle: bool = False) -> str:
    """Free energy (kJ/mol) along one coordinate, of all chains together and of each; an angle is given in rad."""
    values = np.degrees(values) if angle else values

    def draw(figure):
        axes = figure.add_subplot()
        bins = int(np.clip(np.sqrt(values.size), 10, 60))
        edges = np.linspace(*((-180, 180) if angle else _range(values)), bins + 1)
        middle = (edges[1:] + edges[:-1]) / 2
        level = np.histogram(values, edges)[0].max() / values.size
        for i, colour in _chosen(len(values)) if len(values) > 1 else []:
            axes.plot(middle, _free(values[i], edges, thermal, level), color=colour, lw=0.7, alpha=0.55)
        axes.plot(middle, _free(values, edges, thermal, level), color=INK, lw=1.8, label="all chains")
        axes.set(title=title, xlabel=label, ylabel="free energy (kJ/mol)")
        if angle:
            axes.set(xlim=(-180, 180), xticks=range(-180, 181, 90))
        if len(values) > 1:
            axes.plot([], [], color=COLOURS[0], lw=0.7, alpha=0.7, label="one chain each")
            axes.legend()

    return _svg(draw)


def histogram(chains: Sequence[np.ndarray], title: str, label: str) -> str:
    """Density of an observable, of all chains together and of each."""
    pooled = np.concatenate(chains)

    def draw(figure):
        axes = figure.add_subplot()
        low, high = np.quantile(pooled, [0.001, 0.999] if len(pooled) > 1000 else [0, 1])
        edges = np.linspace(
            *_range(pooled[(pooled >= low) & (pooled <= high)]), int(np.clip(np.sqrt(len(pooled)), 10, 50)) + 1
        )
        axes.hist(pooled, edges, density=True, color="#c9d3de", label="all chains")
        for i, colour in _chosen(len(chains)) if len(chains) > 1 else []:
            height = np.histogram(chains[i], edges)[0] / max(len(chains[i]), 1) / np.diff(edges)
            axes.step(edges, np.append(height, height[-1]), where="post", color=colour, lw=0.8, alpha=0.8)
        axes.set(title=title, xlabel=label, ylabel="density", yticks=[])

    return _svg(draw)


def trace(series: Sequence[tuple[np.ndarray, np.ndarray]], title: str, label: str, robust: bool = True) -> str:
    """An observable against the step, one line a chain; `robust` leaves single spikes out of the axis."""

    def draw(figure):
        axes = figure.add_subplot()
        for i, colour in _chosen(len(series)):
            keep = _thin(len(series[i][0]))
            mark = "." if len(keep) < 3 else "-"
            axes.plot(series[i][0][keep], series[i][1][keep], mark, color=colour, lw=0.7, alpha=0.8, rasterized=True)
        pooled = np.concatenate([y for _, y in series])
        if robust and len(pooled) > 100:
            axes.set_ylim(*_range(pooled[pooled <= np.quantile(pooled, 0.999)]))
        axes.set(title=title, xlabel="step", ylabel=label)
        axes.xaxis.set_major_locator(_locator())

    return _svg(draw)


def strips(angles: Mapping[str, np.ndarray], title: str) -> str:
    """Dihedrals (rad, [chains, frames]) against the frame, one row each, one colour a chain."""

    def draw(figure):
        rows = figure.subplots(len(angles), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(rows, angles.items(), strict=True):
            keep = _thin(values.shape[1])
            for i, colour in _chosen(len(values)):
                size = 2.5 if len(keep) > 50 else 12
                axes.scatter(keep, np.degrees(values[i, keep]), s=size, lw=0, color=colour, alpha=0.6, rasterized=True)
            axes.set(ylim=(-185, 185), yticks=(-120, 0, 120))
            axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=2)
            axes.tick_params(labelsize=6.5)
        rows[0].set_title(title)
        rows[-1].set_xlabel("saved frame")
        rows[-1].xaxis.set_major_locator(_locator())

    return _svg(draw, height=0.7 + 0.55 * len(angles))


def bars(rows: Sequence[Population], title: str) -> str:
    """Populations of states as bars with their errors."""

    def draw(figure):
        axes = figure.add_subplot()
        shares = np.array([100 * row.share for row in rows])
        errors = np.array([100 * (row.error or 0.0) for row in rows])
        errors = np.stack([np.minimum(errors, shares), errors])
        style = {"ecolor": INK, "elinewidth": 1, "capsize": 2}
        axes.barh(range(len(rows)), shares, xerr=errors, color="#8fb0d3", error_kw=style, height=0.65)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], family="monospace")
        axes.invert_yaxis()
        axes.set(title=title, xlabel="population (%)", xlim=(0, None))
        axes.grid(axis="y", visible=False)

    return _svg(draw, height=1.0 + 0.24 * max(len(rows), 4))


def _svg(draw: Callable[[Any], None], height: float = HEIGHT) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=DOTS, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure)
        file = io.StringIO()
        # `figure.savefig` would draw it twice, the first time for nothing
        canvas.print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _surface(figure, axes, x, y, thermal, ranges, bins):
    if len(x) < SPARSE:
        axes.scatter(x, y, s=10, lw=0, alpha=0.7, color=COLOURS[0])
        axes.set(xlim=ranges[0], ylim=ranges[1])
        return
    bins = int(np.clip(np.sqrt(len(x)) / 2, 20, bins))
    counts, left, low = np.histogram2d(x, y, bins=bins, range=ranges)
    with np.errstate(divide="ignore"):
        energy = -thermal * np.log(counts.T / counts.max())
    energy[~np.isfinite(energy)] = np.nan
    mesh = axes.pcolormesh(left, low, energy, cmap="viridis_r", rasterized=True, vmin=0)
    axes.grid(visible=False)
    figure.colorbar(mesh, ax=axes, label="free energy (kJ/mol)", shrink=0.9)


def _free(values, edges, thermal, level):
    counts = np.histogram(values, edges)[0]
    with np.errstate(divide="ignore"):
        energy = -thermal * np.log(counts / (level * values.size))
    return np.where(counts > 0, energy, np.nan)


def _range(values) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    margin = 0.03 * (high - low) or max(1e-3 * abs(low), 1e-6)
    return low - margin, high + margin


def _chosen(count):
    kept = np.unique(np.linspace(0, count - 1, min(count, SHOWN)).astype(int))
    return [(int(i), COLOURS[k % len(COLOURS)]) for k, i in enumerate(kept)]


def _thin(count):
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int))


def _locator():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, integer=True)
