"""The report of a run for a person: one HTML file that answers whether the samples can be used, and shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from timewarp.analysis.convergence import CHAINS, ESS_PER_CHAIN, RHAT
from timewarp.analysis.ensemble import Ensemble
from timewarp.analysis.gallery import pictures_panels, upgraded_panels
from timewarp.analysis.log import read_log
from timewarp.analysis.page import code, details, grid, page, paragraph, section, table, verdict_box
from timewarp.analysis.panels import backbone_panels, energies_panels, slow_panels, states_panels, strips_panels
from timewarp.units import kT

FACTS = (
    ("peptide", "peptide"),
    ("atoms", "atoms"),
    ("temperature", "temperature (K)"),
    ("checkpoint", "checkpoint"),
    ("seed", "seed"),
    ("chains", "chains"),
    ("steps", "steps a chain"),
    ("moves_proposed", "moves proposed"),
    ("moves_accepted", "moves accepted"),
    ("acceptance", "acceptance"),
    ("energy_evaluations", "energy evaluations"),
    ("seconds", "time (s)"),
    ("ess_per_second", "ESS a second"),
)
MOVES = {
    "flow": "flow, all torsions",
    "regrowth": "flow, some torsions",
    "turning": "one torsion anew",
    "torsions": "torsions turned",
    "hamiltonian": "Hamiltonian",
}


def write_report(
    report: dict[str, Any],
    topology_pdb: Path,
    trajectories: Sequence[Path],
    log_csv: Path,
    ess: Callable[[np.ndarray], float] | None = None,
    every: int = 1,
) -> str:
    """The text of `report.html`, self-contained, for what is in `report.json` and the files beside it.

    Runs of any length are shown, one frame of one chain included; what cannot be told from them is left out.

    Args:
        report: the contents of `report.json`; `command`, if there, is shown as what reproduces the run, and
            `exactness`, if there, replaces the statement made from `exact`.
        topology_pdb: the molecule in the atom order of the trajectories.
        trajectories: one file a chain.
        log_csv: the energies; a missing file leaves its figures out.
        ess: bulk effective sample size of [chains, draws], for the errors of populations.
        every: of so many frames one is looked at.
    """
    ensemble = Ensemble.load(topology_pdb, trajectories, every)
    log = read_log(log_csv, every) if Path(log_csv).exists() else []
    temperature = float(report.get("temperature") or 310.0)
    thermal = kT(temperature)
    name = str(report.get("peptide") or Path(topology_pdb).stem)
    some = ensemble.frames > 0
    return page(
        f"timewarp: {name}",
        [
            f"<h1>{escape(name)}</h1>",
            _head(report, temperature),
            _caveats(report, ensemble, every),
            section("Main figures", grid([_facts(report, ensemble, every), _diagnostics(report), _moves(report)])),
            section("States", *states_panels(ensemble, temperature, ess, _biased(report))) if some else "",
            section("Exact populations", *upgraded_panels(report.get("upgraded"))),
            section(
                "What the states look like", *pictures_panels(report.get("states") or [], Path(topology_pdb).parent)
            ),
            section("Backbone", grid(backbone_panels(ensemble, thermal))) if some else "",
            section("Slow coordinates", *slow_panels(ensemble, thermal)) if some else "",
            section("Energy and acceptance", grid(energies_panels(log))),
            section("Dihedrals along the chains", grid(strips_panels(ensemble))) if some else "",
            section("To run it again", *_again(report)),
        ],
    )


def _head(report, temperature) -> str:
    verdict = report.get("verdict")
    kinds = {
        "converged": ("good", "Converged: the chains agree, and averages over them can be used."),
        "not converged": ("bad", "Not converged: averages over these samples cannot be relied on yet."),
    }
    kind, headline = kinds.get(verdict, ("unknown", "No verdict was reached on this run."))
    if report.get("exactness"):
        note = str(report["exactness"])
    elif report.get("exact"):
        note = (
            f"Exact: every move passed the Metropolis-Hastings test for the potential at {temperature:g} K, so the "
            "chains sample its Boltzmann distribution whatever the flow got wrong. What remains is statistical error."
        )
    elif "exact" in report:
        note = (
            "Not exact: no Metropolis-Hastings test corrects these samples, so populations and free energies on this "
            "page carry a bias that more samples do not remove."
        )
    else:
        note = "The run does not say whether it is exact."
    return verdict_box(kind, headline, [_sentence(r) for r in report.get("reasons") or []], note)


def _biased(report) -> bool:
    """Whether the run is biased by design, which Langevin dynamics with its own statement on exactness is not."""
    return report.get("exact") is False and not report.get("exactness")


def _caveats(report, ensemble: Ensemble, every: int) -> str:
    lines = [_sentence(notice) for notice in report.get("notices") or []]
    if every > 1:
        lines.append(f"Of every {every} saved frames this page shows one.")
    if not ensemble.frames:
        lines.append("No frames were saved, so there is nothing to show.")
    if ensemble.left_out:
        lines.append(
            f"Chains have different lengths: {ensemble.left_out} frames beyond the shortest are left out here."
        )
    flipped = ensemble.flipped()
    if flipped:
        lines.append(f"In {flipped} frames an alpha carbon has another handedness than at the start.")
    return "".join(paragraph(line) for line in lines)


def _facts(report, ensemble: Ensemble, every: int) -> str:
    rows = [(label, _number(report[key], key)) for key, label in FACTS if report.get(key) is not None]
    return table(
        None, [*rows, ("saved frames" if every == 1 else "frames looked at", f"{ensemble.chains} x {ensemble.frames}")]
    )


def _diagnostics(report) -> str:
    sizes, mixing = report.get("ess") or {}, report.get("rhat") or {}
    if not isinstance(sizes, dict) or not isinstance(mixing, dict):
        return ""
    needed = ESS_PER_CHAIN * max(int(report.get("chains") or 0), CHAINS)
    names = [n for n in sizes if n != "min"]
    rows = [(n, _number(sizes[n], "ess"), _number(mixing.get(n), "rhat")) for n in names]
    off = [(i, 1) for i, n in enumerate(names) if not _at_least(sizes[n], needed)]
    off += [(i, 2) for i, n in enumerate(names) if not _at_least(RHAT, mixing.get(n))]
    note = paragraph(
        f"ESS: effective sample size, {needed} are needed. R-hat: agreement of the chains, below {RHAT}.", True
    )
    return f"<div>{table(('observable', 'ESS', 'R-hat'), rows, off)}{note}</div>" if rows else ""


def _moves(report) -> str:
    """Each kind of move, how many were tested, and which share was accepted."""
    counts = report.get("by_kernel")
    if not isinstance(counts, dict) or not counts:
        return ""
    rows = [
        (MOVES.get(str(name), str(name)), _number(tested), _number(accepted / tested if tested else None, "acceptance"))
        for name, (tested, accepted) in counts.items()
    ]
    return table(("move", "tested", "accepted"), rows)


def _again(report) -> list[str]:
    parts = [code(str(report["command"]))] if report.get("command") else []
    return [*parts, details("All of report.json", code(json.dumps(report, indent=2, default=str)))]


def _number(value, key="") -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if not math.isfinite(value):
        return "unknown"
    if key == "acceptance":
        return f"{100 * value:.3g} %"
    if key == "rhat":
        return f"{value:.3f}"
    if key == "seed":
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _at_least(value, bound) -> bool:
    return value is not None and bound is not None and value >= bound


def _sentence(text) -> str:
    text = str(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
