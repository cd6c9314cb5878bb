"""The table of an evaluation, for a person: a line a peptide, then medians, and what failed or did worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

COLUMNS = {
    "acceptance": ("acceptance", ".1%"),
    "proposal_milliseconds": ("ms", ".2f"),
    "proposal_flow": ("flow", ".0%"),
    "proposal_chart": ("chart", ".0%"),
    "proposal_energy": ("energy", ".0%"),
    "kish_ess": ("Kish ESS", ".3f"),
    "ess_per_second": ("ESS/s", ".2f"),
    "rhat": ("R-hat", ".3f"),
    "e_w2": ("E-W2", ".3f"),
    "t_w2": ("T-W2", ".3f"),
    "tica_w2": ("TICA-W2", ".3f"),
    "e_w2_proposals": ("E prop", ".3f"),
    "t_w2_proposals": ("T prop", ".3f"),
    "tica_w2_proposals": ("TICA prop", ".3f"),
    "snis_e_w2": ("E SNIS", ".3f"),
    "snis_t_w2": ("T SNIS", ".3f"),
    "snis_tica_w2": ("TICA SNIS", ".3f"),
    "floor_e_w2": ("E floor", ".3f"),
    "floor_t_w2": ("T floor", ".3f"),
    "floor_tica_w2": ("TICA floor", ".3f"),
}
WORST = 3  # peptides that are named


def figures(rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str], budget: int, frames: int) -> str:
    """Medians over the peptides of their medians over the seeds, with the spread of the medians from seed to seed."""
    peptides = list(dict.fromkeys(row["sequence"] for row in rows))
    seeds = sorted({row["seed"] for row in rows})
    shown = {key: how for key, how in COLUMNS.items() if any(row.get(key) is not None for row in rows)}
    widths = {key: max(len(head), 7) for key, (head, _) in shown.items()}
    lines = [_line("peptide", {key: head for key, (head, _) in shown.items()}, widths)] if rows else []

    def middle(key: str, chosen: Sequence[Mapping[str, Any]]) -> float | None:
        values = [row[key] for row in chosen if row.get(key) is not None]
        return median(values) if values else None

    table = {p: {key: middle(key, [r for r in rows if r["sequence"] == p]) for key in shown} for p in peptides}
    lines += [
        _line(p, {key: _form(v, shown[key][1]) for key, v in cells.items()}, widths) for p, cells in table.items()
    ]
    if rows:
        overall = {key: middle(key, list(table.values())) for key in shown}
        lines.append(_line("median", {key: _form(v, shown[key][1]) for key, v in overall.items()}, widths))
    if len(seeds) > 1:
        by_seed = {key: [middle(key, [r for r in rows if r["seed"] == seed]) for seed in seeds] for key in shown}
        for name, pick in (("  lowest seed", min), ("  highest seed", max)):
            found = {key: pick([v for v in values if v is not None]) for key, values in by_seed.items()}
            lines.append(_line(name, {key: _form(v, shown[key][1]) for key, v in found.items()}, widths))
    if rows:
        # a run may be too short for a proposal to be tested
        rates = {p: rate for p in peptides if (rate := table[p].get("acceptance")) is not None}
        named = ", ".join(f"{p} {rates[p]:.1%}" for p in sorted(rates, key=rates.__getitem__)[:WORST])
        lowest = f"; lowest acceptance: {named}" if named else ""
        lines.append(f"{len(peptides)} peptides, {len(seeds)} seed{'s'[: len(seeds) > 1]}{lowest}")
        loose = sorted({row["sequence"] for row in rows if row.get("reference_agrees") is False})
        lines += [f"the halves of the reference do not agree yet: {', '.join(loose)}"] if loose else []
    lines += [f"failed: {sequence}: {reason}" for sequence, reason in failed.items()]
    if "e_w2" in shown:
        lines.append(_explained(rows, budget, frames))
        few = sorted({row["sequence"] for row in rows if row.get("reference_frames", frames) < frames})
        lines += [f"the reference has fewer frames, its time being over: {', '.join(few)}"] if few else []
    return "\n".join(lines)


def _explained(rows: Sequence[Mapping[str, Any]], budget: int, frames: int) -> str:
    cost = median(row["evaluations_a_proposal"] for row in rows if row.get("evaluations_a_proposal"))
    setup = median(row["setup_evaluations"] for row in rows if row.get("setup_evaluations") is not None)
    return (
        f"E in kT, T in rad; of the chain that spends {budget} evaluations of energies and gradients ({cost:g} a "
        f"proposal, the {setup:g} for the chart of a molecule apart); prop: of the chain of {budget} proposals; SNIS: "
        f"of the draws of the first, resampled by weight, the largest 0.2 % left out as published; each against "
        f"{frames} reference frames; floor: these against as many"
    )


def _line(name: str, cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    return f"{name:<14}" + "".join(f" {cells[key]:>{width}}" for key, width in widths.items())


def _form(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
