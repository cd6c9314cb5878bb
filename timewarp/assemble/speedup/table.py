"""The table of a benchmark, for a person: a line a method, peptide by peptide, then what the medians are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import hypot
from statistics import median
from typing import Any

from timewarp.assemble.speedup.methods import MD
from timewarp.units import KCAL

Row = Mapping[str, Any]
HEAD = ("method", "ESS", "ESS/s", "sampling", "set-up s", "accepted", "R-hat", "states s", "published", "speed-up",
        "over paper")  # fmt: skip
WITHIN = 0.1 * KCAL  # kJ/mol
MEDIANS = {
    "speedup": "over the fastest MD",
    "speedup_paper": "over MD as published",
    "states_speedup": "in finding all states, over the fastest MD",
    "states_speedup_paper": "in finding all states, over MD as published",
}


def table(rows: Sequence[Row], failed: Mapping[str, str] | None = None) -> str:
    """All rows, with what each failed; ESS a second of a method that failed a gate stands in brackets."""
    lines: list[str] = []
    for peptide in dict.fromkeys(row["peptide"] for row in rows):
        mine = [row for row in rows if row["peptide"] == peptide]
        cells = [HEAD, *(tuple(cells_of(row).values()) for row in mine)]
        widths = [max(len(line[k]) for line in cells) for k in range(len(HEAD))]
        lines.append(f"{peptide}, {mine[0]['atoms']} atoms, {mine[0]['machine']}, {mine[0]['budget']:g} s a method")
        for line, row in zip(cells, [None, *mine], strict=True):
            text = "  ".join(
                cell.ljust(width) if k == 0 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            lines.append(f"  {text}" + (f"  {'; '.join(row['gates'])}" if row and row["gates"] else ""))
    lines += [*medians(rows), *estimates(rows), *checks(rows), *gaps(rows)]
    if rows:
        lines.append(
            "ESS of the slowest observable; ESS/s: everything counted; sampling: set-up not counted; in brackets: a "
            "gate was failed; <: MD failed a gate, and this is the most that it can be worth, by the crossings that "
            "it made, or that the same dynamics makes in equilibrium (95 %); >=: against such MD; states: until all "
            "basins of the reference were seen; published: the slowest TICA component of single chains, no gates"
        )
        load = max(row["load"] for row in rows)
        loose = sorted({row["peptide"] for row in rows if row.get("reference_agrees") is False})
        lines.append(f"load of the machine when a method began: up to {load:.1f}")
        lines += [f"the halves of the reference do not agree yet: {', '.join(loose)}"] if loose else []
        alone = {row["peptide"]: row["doubtful_basins"] for row in rows if row.get("doubtful_basins")}
        told = "; ".join(f"{peptide} {', '.join(names)}" for peptide, names in alone.items())
        lines += [f"found by one half of the reference alone, and not asked for: {told}"] if told else []
    lines += [f"failed: {name}: {reason}" for name, reason in (failed or {}).items()]
    return "\n".join(lines)


def line(row: Row) -> str:
    """A row in a few words."""
    if row["ess_per_second"] is None:
        return f"all states after {cells_of(row)['states s']} s"
    cells = cells_of(row)
    said = f"{cells['ESS/s']} ESS/s, speed-up {cells['speed-up']}"
    return said + (f", failed: {'; '.join(row['gates'])}" if row["gates"] else "")


def cells_of(row: Row) -> dict[str, str]:
    """The cells of a row, by `HEAD`."""
    failed = bool(row["gates"])
    acceptance = row.get("acceptance")
    sound = (
        row["method"],
        number(row["ess"], failed),
        rate(row),
        number(row.get("ess_per_second_sampling"), failed),
        f"{row['setup_seconds']:.1f}",
        "-" if acceptance is None else f"{acceptance:.1%}",
        "-" if row.get("rhat") is None else f"{row['rhat']:.3f}",
        "never" if row["states_seconds"] is None else f"{row['states_seconds']:.1f}",
        number(row.get("published_ess_per_second"), failed),
        times(row, "speedup"),
        times(row, "speedup_paper"),
    )
    return dict(zip(HEAD, sound, strict=True))


def rate(row: Row) -> str:
    """ESS a second: `12`; `(12)` where a gate was failed; `< 12` of MD that failed one: the most that it can be."""
    bound = row.get("ess_bound_per_second")
    if row["gates"] and row["method"] in MD and bound is not None:
        return f"< {bound:.3g}"
    return number(row["ess_per_second"], bool(row["gates"]))


def number(value: float | None, bracketed: bool = False) -> str:
    """Three digits, in brackets where they do not count."""
    text = "-" if value is None else f"{value:.3g}"
    return f"({text})" if bracketed and value is not None else text


def times(row: Row, name: str) -> str:
    """A speed-up: `120x`, `>= 120x` if it is a lower bound, `0` after a failed gate."""
    value = row.get(name)
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{'>= ' if row.get(f'{name}_at_least') else ''}{value:.3g}x"


def medians(rows: Sequence[Row]) -> list[str]:
    """Lines with the median speed-ups of each method over two or more peptides."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows if not row["method"].startswith("md-")):
        for name, told in MEDIANS.items():
            text = middle(rows, method, name)
            if text and sum(row["method"] == method for row in rows) > 1:
                lines.append(f"median speed-up of {method}: {text} {told}")
    return lines


def estimates(rows: Sequence[Row]) -> list[str]:
    """Lines with what the median speed-ups would be if MD were long enough; a method that failed a gate has 0.

    MD's effective samples are then the picoseconds that it makes over twice the slowest timescale, as TICA finds it in
    dynamics from frames of the reference: too short where a state is rare, and not without statistical error.
    """
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows if not row["method"].startswith("md-")):
        mine = {row["peptide"]: row for row in rows if row["method"] == method and row["ess_per_second"] is not None}
        said = []
        for md in (name for name in MD if any(row["method"] == name for row in rows)):
            found = [
                0.0 if mine[row["peptide"]]["gates"] else mine[row["peptide"]]["ess_per_second"] / rate
                for row in rows
                if row["method"] == md and row["peptide"] in mine and (rate := long_run(row))
            ]
            said += [f"{median(found):.3g}x of {len(found)} over {md}"] if len(found) > 1 else []
        if said:
            lines.append(f"median speed-up of {method}, MD estimated by its slowest timescale: {', '.join(said)}")
    return lines


def long_run(row: Row) -> float | None:
    """ESS a second of MD by the slowest timescale; None where it is not known."""
    timescale, made = row.get("timescale_ps"), row.get("picoseconds")
    return made / (2 * timescale) / row["seconds"] if timescale and made else None


def checks(rows: Sequence[Row]) -> list[str]:
    """Lines on whether MD crossed as often as the dynamics by which it is bounded says: it should, on average."""
    lines = []
    for method in MD:
        mine = [row for row in rows if row["method"] == method and "crossings_as_dynamics" in row]
        if not mine:
            continue
        expected = sum(row["dynamics_crossings"] * row["picoseconds"] / row["dynamics_picoseconds"] for row in mine)
        made = sum(row["crossings_as_dynamics"] for row in mine)
        longer = median(row["dynamics_picoseconds"] / row["picoseconds"] for row in mine)
        lines.append(
            f"crossings of the slowest coordinate, {len(mine)} peptides: {method} made {made}, expected "
            f"{expected:.0f} from the same dynamics in equilibrium, {longer:.3g} times as long (median)"
        )
    return lines


def gaps(rows: Sequence[Row]) -> list[str]:
    """Lines on how near each exact method that passed its gates has the free energies of basins to the reference."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method and not row["gates"] and row.get("free_energies")]
        parts = [part for row in mine for part in row["free_energies"] if part["free_energy"] is not None]
        if not parts:
            continue
        far = [abs(part["free_energy"] - part["reference"]) for part in parts]
        errors = [hypot(part["error"], part["reference_error"]) for part in parts]
        near = sum(gap <= max(WITHIN, error) for gap, error in zip(far, errors, strict=True))
        sigmas = max((gap / error for gap, error in zip(far, errors, strict=True) if error), default=0.0)
        lines.append(
            f"free energies of {len(parts)} basins by {method}, {len(mine)} peptides: {near} within 0.1 kcal/mol of "
            f"the reference or one standard error of both; median gap {median(far) / KCAL:.3f} kcal/mol, error "
            f"{median(errors) / KCAL:.3f}, largest gap {sigmas:.1f} errors"
        )
    return lines


def middle(rows: Sequence[Row], method: str, name: str) -> str | None:
    """The median of a speed-up over the peptides, a failed one counting as 0: `>= 120x of 8`; None where there is none.

    `>=` if the median is not known but from below: one of the two in the middle, or one below them, is at least that.
    """
    mine = [row for row in rows if row["method"] == method and row.get(name) is not None]
    if not mine:
        return None
    value = median(row[name] for row in mine)
    bound = any(row.get(f"{name}_at_least") and row[name] <= value for row in mine)
    upper = sorted(mine, key=lambda row: row[name])[len(mine) // 2]
    bound = bound or bool(upper.get(f"{name}_at_least") and len(mine) % 2 == 0)
    return f"{'>= ' if bound else ''}{value:.3g}x of {len(mine)}"
