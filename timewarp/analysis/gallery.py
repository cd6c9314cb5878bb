"""The parts of the report that are made from `report.json` alone: what the states look like, and what came after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timewarp.analysis.page import figure, grid, paragraph, table
from timewarp.analysis.picture import ball_and_stick

PICTURES = 12


def pictures_panels(states: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """A picture of each state, from the file in `folder` that shows it; none where there are no files.

    Args:
        states: rows with `state`, `share`, `file`, `first_seconds` and `potential_kj_per_mol`.
        folder: of the run.
    """
    import mdtraj

    cards, like = [], None
    for row in states[:PICTURES]:
        path = folder / str(row.get("file"))
        if not path.is_file():
            continue
        structure = mdtraj.load_pdb(str(path), standard_names=False)
        positions = structure.xyz[0].astype(float)
        svg = ball_and_stick(structure.topology, positions, like)
        like = positions if like is None else like
        words = (
            f"{row['state'] or 'all'}: {100 * row['share']:.3g} % of the frames, found after {row['first_seconds']:.0f}"
            f" s (step {row['first_step']}); {row['file']}, {row['potential_kj_per_mol']:.1f} kJ/mol"
        )
        cards.append(figure(svg, f"The state {row['state']} as balls and sticks", words))
    if not cards:
        return []
    note = (
        "The frame of lowest energy of each state, all laid on the backbone of the first; hydrogens on carbon hidden."
    )
    return [paragraph(note, soft=True), grid(cards)]


def upgraded_panels(upgraded: dict[str, Any] | None) -> list[str]:
    """Populations of the exact chains that followed an exploration; nothing where none did."""
    if not upgraded:
        return []
    said = "; ".join(str(reason) for reason in upgraded.get("reasons") or [])
    lines = [
        paragraph(
            f"Exact chains ({upgraded['chains']}, {upgraded['steps']} steps each) started in the states that were "
            "found. Their populations are those of the Boltzmann distribution, within their errors; everything else of "
            "them is in the directory exact."
        ),
        paragraph(f"They are {upgraded['verdict']}{': ' + said if said else ''}."),
    ]
    rows = [
        (
            row["state"],
            _with(100 * row["share"], row["error"] and 100 * row["error"]),
            _with(row["free_energy"], row["free_energy_error"]),
            str(row["chains"]),
        )
        for row in upgraded["states"]
    ]
    return [*lines, table(("state", "%", "free energy (kJ/mol)", "chains"), rows)]


def _with(value: float | None, error: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g} ± {error:.2g}" if error else f"{value:.3g}"
