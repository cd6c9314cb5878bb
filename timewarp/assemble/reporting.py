"""What the runs of chains have in common: how they are told apart, begun, and judged at their end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from timewarp.analysis import write_report
from timewarp.assemble.judging import MOST, judge
from timewarp.assemble.listing import list_states
from timewarp.atomic import write_atomically
from timewarp.mcmc.ess import bulk_ess
from timewarp.output import RunDirectory
from timewarp.settings import ChainSettings

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

LIMITS = ("pdb", "out", "steps", "seconds", "until", "upgrade", "device", "resume")  # what a resumed run may change


@runtime_checkable
class Tally(Protocol):
    """What a run has done, in all sessions: steps a chain; moves and energies of all chains together."""

    step: int
    proposed: int
    accepted: int
    evaluations: int
    seconds: float


def identity(settings: ChainSettings, prepared: Prepared, **more: Any) -> dict[str, Any]:
    """What a resumed run must share with the one that was stopped: the potential, and every option but the limits."""
    from timewarp.md.energy import fingerprint

    own = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in LIMITS}
    return (
        {"command": _word(settings), "peptide": prepared.sequence, "potential": fingerprint(prepared.system)}
        | own
        | more
    )


def begin(directory: RunDirectory, prepared: Prepared, chains: int) -> None:
    """Start at the beginning: the topology and empty trajectories."""
    from timewarp.md.pdb import pdb_text

    directory.begin(pdb_text(prepared.topology, prepared.positions), len(prepared.positions), chains)


def finish(
    settings: ChainSettings,
    directory: RunDirectory,
    prepared: Prepared,
    *,
    exact: bool,
    tally: Tally,
    checkpoint: str | None = None,
    exactness: str | None = None,
    biased: bool | None = None,
    explored: Mapping[str, float] | None = None,
    seen: Collection[str] = (),
    notices: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Judge every frame of the run, write report.json and report.html, and return what the former holds.

    Args:
        exact: whether every move passed the Metropolis-Hastings test on the potential.
        tally: its `by_kernel`, where it has one, is reported too.
        checkpoint: of the flow, if there is one.
        exactness: a sentence on it, where the page's own does not fit.
        biased: so by design that no number of samples helps, and the run never converged; as a rule, if not `exact`.
        explored, seen: see `judge`.
        notices: what a person should know: how the molecule was prepared, which energy was used.
        more: further entries of report.json.
    """
    biased = not exact if biased is None else biased
    judged = judge(directory, settings.chains, tested=bool(tally.proposed), biased=biased, explored=explored, seen=seen)
    if (every := judged.every) > 1:
        notices = [*notices, f"of every {every} frames one was judged, so that each ESS is a lower bound"]
    values = {
        "exact": exact,
        "peptide": prepared.sequence,
        "atoms": len(prepared.positions),
        "temperature": settings.temperature,
        "checkpoint": checkpoint,
        "seed": settings.seed,
        "chains": settings.chains,
        "steps": tally.step,
        "moves_proposed": tally.proposed,
        "moves_accepted": tally.accepted,
        "acceptance": tally.accepted / tally.proposed if tally.proposed else None,
        "energy_evaluations": tally.evaluations,
        "seconds": tally.seconds,
        "ess_per_second": judged.values["ess"]["min"] / tally.seconds if tally.seconds else None,
        **judged.values,
        "states": list_states(
            directory,
            prepared,
            judged,
            settings.temperature,
            biased=biased,
            setup=getattr(tally, "setup", 0.0),
            seconds=tally.seconds,
        ),
        "frames": directory.frames,
        "notices": list(notices),
        "command": spelled(settings),
        **({"exactness": exactness} if exactness else {}),
        **({"by_kernel": tally.by_kernel} if hasattr(tally, "by_kernel") else {}),
        **more,
    }
    directory.report(values, _page(values, directory.path, every))
    return values


def amend(path: Path, more: Mapping[str, Any]) -> dict[str, Any]:
    """Add entries to the report of a finished run, in both its files; what it holds then."""
    file = path / "report.json"
    values = json.loads(file.read_text()) | more
    every = -(-values["frames"] * values["chains"] // MOST) or 1
    write_atomically(file, json.dumps(values, indent=2).encode() + b"\n")
    write_atomically(path / "report.html", _page(values, path, every).encode())
    return values


def _page(values: dict[str, Any], path: Path, every: int) -> str:
    trajectories = sorted(path.glob("chain-*.dcd"))
    return write_report(values, path / "topology.pdb", trajectories, path / "log.csv", bulk_ess, every)


def spelled(settings: ChainSettings) -> str:
    """The command line that asks for these settings."""
    words = ["timewarp", _word(settings), str(settings.pdb)]
    for field in fields(settings):
        value = getattr(settings, field.name)
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [option] if value and field.name != "resume" else []
        elif field.name != "pdb" and value is not None:
            words += [option, str(value)]
    return shlex.join(words)


def _word(settings: ChainSettings) -> str:
    return type(settings).__name__.removesuffix("Settings").lower()
