"""A report in a few lines, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from timewarp.settings import Report


def summary(report: Report) -> Iterator[str]:
    """The lines that a person wants first: how much was done, how well it mixes, whether to trust it."""
    if report.get("moves_proposed"):
        exact = "exact" if report.get("exact") else "not exact"
        yield (
            f"{exact}: {report['chains']} chains, {report['moves_accepted']} of {report['moves_proposed']} moves "
            f"accepted ({100 * (report['acceptance'] or 0):.3g} %) in {report['seconds']:.0f} s"
        )
    least = (report.get("ess") or {}).get("min")
    if least is not None:
        yield f"effective samples of the slowest observable: {least:.3g}"
    if "verdict" in report:
        yield ": ".join([str(report["verdict"]), *(["; ".join(report["reasons"])] if report.get("reasons") else [])])
    if "message" in report:
        yield str(report["message"])
