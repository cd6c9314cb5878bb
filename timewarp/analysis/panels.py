"""The parts of the report that are drawn from the samples: states, backbone, slow coordinates, energies, traces.

Each function returns pieces of HTML, and none where the run is too short or the peptide has nothing to show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from timewarp.analysis import plots
from timewarp.analysis.basins import REGIONS, populations, states
from timewarp.analysis.ensemble import Ensemble
from timewarp.analysis.log import ChainLog
from timewarp.analysis.page import figure, grid, paragraph, table
from timewarp.analysis.slow import slowest

SHOWN_STATES = 16
SHOWN_STRIPS = 12


def states_panels(
    ensemble: Ensemble,
    temperature: float,
    ess: Callable[[np.ndarray], float] | None = None,
    biased: bool = False,
) -> list[str]:
    """Populations of states as bars and as a table, and what the letters mean; shares alone where they are biased."""
    words = states(ensemble)
    if not words.size or not words[0, 0]:
        return []
    rows = populations(words, temperature, ess)
    shown = rows[:SHOWN_STATES]
    cells = [
        (
            row.name,
            _with_error(100 * row.share, None if row.error is None else 100 * row.error),
            *(() if biased else (_with_error(row.free_energy, row.free_energy_error),)),
            f"{row.chains} of {ensemble.chains}",
        )
        for row in shown
    ]
    listing = table(("state", "%", *(() if biased else ("free energy (kJ/mol)",)), "chains"), cells)
    meaning = (
        "Shares of the frames, which are no populations: this run is biased."
        if biased
        else "Errors are one standard error, free energies are against the most populated state."
    )
    letters = [(k, v) for k, v in REGIONS.items() if any(k in row.name for row in rows)]
    parts = [
        paragraph(
            f"One letter a residue, by its region of the Ramachandran map. {meaning} The last column counts the chains "
            "that visited the state."
        ),
        grid(
            [
                figure(plots.bars(shown, "Populations"), "Bar chart of the populations of states"),
                listing,
                table(None, letters, words=True),
            ]
        ),
    ]
    if len(rows) > len(shown):
        rest = 100 * sum(row.share for row in rows[SHOWN_STATES:])
        parts.insert(2, paragraph(f"{len(rows) - len(shown)} further states share {rest:.2g} %.", soft=True))
    return parts


def backbone_panels(ensemble: Ensemble, thermal: float) -> list[str]:
    """Ramachandran plots of residues that have both angles, and profiles of the angles that are left over."""
    have = {(d.kind, d.residue) for d in ensemble.table if d.kind in ("phi", "psi")}
    order = list(dict.fromkeys(d.residue for d in ensemble.table))
    pairs = [(n, n) for n in order if {("phi", n), ("psi", n)} <= have]
    if not pairs:  # a dipeptide without caps: the two angles on either side of its peptide bond
        pairs = [(b, a) for a, b in pairwise(order) if {("psi", a), ("phi", b)} <= have]
    panels = []
    for p, q in pairs:
        title = f"Residue {p}" if p == q else f"Residues {q} and {p}"
        x, y = ensemble.angle(f"phi {p}"), ensemble.angle(f"psi {q}")
        svg = plots.ramachandran(x, y, thermal, title, (f"phi {p}", f"psi {q}"))
        panels.append(figure(svg, f"Ramachandran plot, phi {p} against psi {q}"))
    used = {("phi", p) for p, _ in pairs} | {("psi", q) for _, q in pairs}
    for kind, number in sorted(have - used, key=lambda item: order.index(item[1])):
        name = f"{kind} {number}"
        svg = plots.profile(ensemble.angle(name), thermal, f"Residue {number}", f"{name} (degrees)", angle=True)
        panels.append(figure(svg, f"Free energy along {name}"))
    return panels


def slow_panels(ensemble: Ensemble, thermal: float) -> list[str]:
    """Free energies along the two slowest coordinates; nothing where the run is too short to know them."""
    model = slowest(ensemble)
    if model is None:
        return []
    slow = model(ensemble.features())
    panels = []
    for i in range(slow.shape[-1]):
        svg = plots.profile(slow[..., i], thermal, f"Along TIC {i}", f"TIC {i}")
        panels.append(figure(svg, f"Free energy along slow coordinate {i}"))
    if slow.shape[-1] > 1:
        svg = plots.plane(slow[..., 0], slow[..., 1], thermal, "TIC 0 and TIC 1", ("TIC 0", "TIC 1"))
        panels.append(figure(svg, "Free energy over the two slowest coordinates"))
    times = ", ".join(f"{v:.2f}" for v in model.eigenvalues)
    note = f"TICA of sines and cosines of all dihedrals; correlation at a lag of {model.lag} saved frames: {times}."
    return [grid(panels), paragraph(note, soft=True)]


def energies_panels(log: list[ChainLog]) -> list[str]:
    """Histogram and traces of the potential energy, and the running acceptance where there is one."""
    log = [ChainLog(c.chain, *(v[np.isfinite(c.potential)] for v in (c.steps, c.potential, c.accepted))) for c in log]
    log = [c for c in log if len(c.steps)]
    if not log:
        return []
    label = "potential energy (kJ/mol)"
    panels = [
        figure(plots.histogram([c.potential for c in log], "Energy", label), "Histogram of the potential energy"),
        figure(
            plots.trace([(c.steps, c.potential) for c in log], "Energy", label), "Potential energy along the chains"
        ),
    ]
    rates = [(c.steps, 100 * c.acceptance()) for c in log if np.isfinite(c.accepted).any()]
    if rates:
        svg = plots.trace(rates, "Running acceptance", "accepted (%)", robust=False)
        panels.append(figure(svg, "Running share of accepted moves"))
    return panels


def strips_panels(ensemble: Ensemble) -> list[str]:
    """Every dihedral along the chains; omegas, which hardly move, come last."""
    names = [d.name for d in ensemble.table if d.kind != "omega"] + [
        d.name for d in ensemble.table if d.kind == "omega"
    ]
    panels = []
    for start in range(0, len(names), SHOWN_STRIPS):
        some = {name: ensemble.angle(name) for name in names[start : start + SHOWN_STRIPS]}
        panels.append(figure(plots.strips(some, "Dihedrals (degrees)"), f"Traces of {', '.join(some)}"))
    return panels


def _with_error(value, error) -> str:
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
