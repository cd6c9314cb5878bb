"""One picture of two samples of a peptide: what they say of its angles and of its energy, side by side."""

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from timewarp.analysis.plots import COLOURS, INK, STYLE

DEPTH = 22.0  # kJ/mol, of the free energies that are shown
WIDE = 5  # panels in a row


def portrait(file, name, md, flow, thermal):
    """Ramachandran plots of both, and the densities of each angle and of the energy with their standard errors.

    Args:
        file: the PNG to be written.
        name: of the peptide.
        md, flow: each with `angles` (rad) by name and `energy` (kJ/mol), [chains, frames].
        thermal: kT in kJ/mol.
    """
    angles = list(md.angles)
    phi, psi = _plane(angles)
    lines = [*angles, "energy"]
    rows = -(-len(lines) // WIDE)
    columns = -(-len(lines) // rows)
    with matplotlib.rc_context(STYLE | {"savefig.dpi": 120}):
        figure = Figure(figsize=(max(8.0, 2.15 * columns), 3.5 + 2.1 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subfigures(2, 1, height_ratios=[3.3, 2.1 * rows])
        above.suptitle(f"{name}, 310 K", fontweight="bold", fontsize=11)
        maps = above.subplots(1, 2, sharex=True, sharey=True)
        titles = (f"MD ({_count(md)})", f"timewarp sample ({_count(flow)})")
        for axes, side, title in zip(maps, (md, flow), titles):
            mesh = _map(axes, side.angles[phi], side.angles[psi], thermal)
            axes.set(title=title, xlabel=f"{_label(phi)} (degrees)")
        maps[0].set_ylabel(f"{_label(psi)} (degrees)")
        above.colorbar(mesh, ax=list(maps), label="free energy (kJ/mol)", shrink=0.9, extend="max")
        panels = below.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(lines) :]:
            axes.set_axis_off()
        for axes, key in zip(panels, lines):
            _density(axes, key, md, flow)
        panels[0].legend(loc="best", handlelength=1.2)
        figure.savefig(file, metadata={"Software": None})


def _plane(angles):
    """phi and psi of the first residue that has both, or the first of each."""
    for angle in angles:
        if angle.startswith("phi") and angle.replace("phi", "psi") in angles:
            return angle, angle.replace("phi", "psi")
    return (next(a for a in angles if a.startswith(kind)) for kind in ("phi", "psi"))


def _label(angle):
    kind, residue = angle.split()
    letter = {"phi": r"\phi", "psi": r"\psi", "chi1": r"\chi_1"}[kind]
    return f"${letter}$ of residue {residue}"


def _count(side):
    return f"{side.energy.size:,} frames".replace(",", "\u2009")


def _map(axes, x, y, thermal):
    counts, left, low = np.histogram2d(
        np.degrees(x).ravel(), np.degrees(y).ravel(), bins=40, range=((-180, 180), (-180, 180))
    )
    with np.errstate(divide="ignore"):
        energy = -thermal * np.log(counts.T / counts.max())
    energy[~np.isfinite(energy)] = np.nan
    axes.set(aspect="equal", xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))
    axes.grid(visible=False)
    return axes.pcolormesh(left, low, energy, cmap="viridis_r", vmin=0, vmax=DEPTH)


def _density(axes, key, md, flow):
    energies = np.concatenate([md.energy.ravel(), flow.energy.ravel()])
    for side, colour, label in ((md, INK, "MD"), (flow, COLOURS[1], "flow")):
        if key == "energy":
            values, edges = side.energy, np.linspace(*np.quantile(energies, [0.0005, 0.9995]), 41)
        else:
            values, edges = np.degrees(side.angles[key]), np.linspace(-180, 180, 61)
        each = np.stack([np.histogram(chain, edges)[0] / len(chain) for chain in values]) / np.diff(edges)
        mean, error = each.mean(0), each.std(0, ddof=1) / np.sqrt(len(each))
        middle = (edges[1:] + edges[:-1]) / 2
        axes.fill_between(middle, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.25, lw=0)
        axes.plot(
            middle, mean, color=colour, lw=1.3 if side is md else 1.1, ls="-" if side is md else "--", label=label
        )
    axes.set(yticks=[], ylim=(0, None), xlabel="energy (kJ/mol)" if key == "energy" else f"{_label(key)} (degrees)")
    axes.spines["left"].set_visible(False)
    if key != "energy":
        axes.set(xlim=(-180, 180), xticks=range(-180, 181, 90))
