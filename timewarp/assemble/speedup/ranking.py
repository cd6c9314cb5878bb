"""Speed-ups, from the rows of all methods of a peptide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timewarp.assemble.speedup.methods import MD

Row = Mapping[str, Any]


def ranked(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with `speedup` and what belongs to it.

    `speedup` is against the fastest MD of the same peptide, `speedup_paper` against the published protocol. The ESS a
    second of MD that failed a gate is not known; the most that it can be (see `bound`) stands for it, the speed-up is
    then a lower bound, and `speedup_at_least` (`speedup_paper_at_least`) is true. A method that failed a gate has 0.
    `states_speedup` compares the times until all states were seen, in the same way: MD that did not see them all needs
    more than it had, and on average at least what its dynamics in equilibrium says (see `crossings`).
    `ess_is` says what the ESS a second of the row is. `speedup_apparent` divides by the largest ESS a second that any
    MD seemed to have, gates or not.
    """
    out = []
    for row in rows:
        peers = [other for other in rows if other["peptide"] == row["peptide"] and other["method"] in MD]
        paper = [other for other in peers if other["method"] == "md-paper"]
        more: dict[str, Any] = {"ess_is": ess_is(row)}
        for name, against in (("speedup", peers), ("speedup_paper", paper)):
            more[name], more[f"{name}_at_least"] = _speedup(row, against)
            more[f"states_{name}"], more[f"states_{name}_at_least"] = _sooner(row, against)
        seeming = max((other["ess_per_second"] or 0.0 for other in peers), default=0.0)
        own = row["ess_per_second"] if row["ess_per_second"] is not None and not row["gates"] else None
        more["speedup_apparent"] = own / seeming if own is not None and seeming else None
        out.append({**row, **more})
    return out


def ess_is(row: Row) -> str:
    """`measured`; `at most`, of MD that failed a gate; or `refused`, of another method that did; `none` if biased."""
    if row["ess_per_second"] is None:
        return "none"
    if not row["gates"]:
        return "measured"
    return "at most" if row["method"] in MD else "refused"


def _speedup(row: Row, against: Sequence[Row]) -> tuple[float | None, bool]:
    if row["ess_per_second"] is None or not against:
        return None, False
    if row["gates"]:
        return 0.0, False
    rates = [(r["ess_bound_per_second"] if r["gates"] else r["ess_per_second"], bool(r["gates"])) for r in against]
    rate, bounded = max(rates)
    return row["ess_per_second"] / rate, bounded


def _sooner(row: Row, against: Sequence[Row]) -> tuple[float | None, bool]:
    if not against:
        return None, False
    if row["states_seconds"] is None:
        return 0.0, False
    there = [r["states_seconds"] for r in against if r["states_seconds"] is not None]
    if there:
        return min(there) / row["states_seconds"], False
    longer = min(max(r["seconds"], r.get("states_seconds_expected") or 0.0) for r in against)
    return longer / row["states_seconds"], True
