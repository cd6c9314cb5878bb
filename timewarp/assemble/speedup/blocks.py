"""A method on a peptide as blocks of chains, one a core; from their records to a row."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timewarp.assemble.speedup.job import REFERENCE, Job
from timewarp.assemble.speedup.judge import judged
from timewarp.assemble.speedup.methods import MD, METHODS, kind
from timewarp.assemble.speedup.preparation import Named
from timewarp.assemble.speedup.record import Record
from timewarp.assemble.speedup.target import Target
from timewarp.resources import checkpoint_path
from timewarp.settings import RaceSettings

WORK = "work"  # the folder of records that have no row yet


def cores_of(settings: RaceSettings) -> int:
    """The cores asked for, or all that this process may use."""
    return settings.cores or len(os.sched_getaffinity(0))


def blocks(settings: RaceSettings, peptide: Named, method: str, platform: str = "") -> list[Job]:
    """The jobs of a method: one process a core; one in all for a batch on a GPU."""
    device = settings.device.resolve()
    openmm = method.startswith("md-") or method == "exchange"
    count = 1 if device != "cpu" and not openmm else cores_of(settings)
    checkpoint = str(checkpoint_path(method.partition(":")[2] or settings.checkpoints[0]).resolve())
    return [_job(settings, peptide, method, k, device, platform, checkpoint) for k in range(count)]


def reference(settings: RaceSettings, peptide: Named) -> Job:
    """The job that makes what the methods on a peptide are judged against."""
    job = _job(settings, peptide, REFERENCE, 0, "cpu", "", "")
    return replace(job, seconds=settings.reference_seconds)


def _job(settings, peptide: Named, method: str, number: int, device: str, platform: str, checkpoint: str) -> Job:
    folder = settings.out / WORK / _plain(peptide.name) / _plain(method)
    return Job(
        pdb=str(peptide.pdb), method=method, record=str((folder / f"{number}.safetensors").resolve()),
        seconds=settings.seconds, seed=1000 * settings.seed + number, platform=platform,
        temperature=settings.temperature, chains=settings.chains, checkpoint=checkpoint, device=device,
        frames=settings.reference_frames, patience=settings.reference_seconds,
        protocols=tuple(m for m in settings.methods or METHODS if m in MD), dynamics=settings.dynamics_seconds,
    )  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name)


def row_of(
    name: str, jobs: Sequence[Job], records: Sequence[Record], target: Target
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of a method and its curves, from what its blocks left."""
    one = jobs[0]
    row, curves = judged(records, target, one.temperature, biased=kind(one.method) == "explore", method=one.method)
    machines = sorted({record.facts.get("machine", "?") for record in records})
    head = {"peptide": name, "atoms": target.topology.n_atoms, "method": one.method}
    head |= {"residues": target.topology.n_residues, "seed": one.seed // 1000}
    tail: dict[str, Any] = {"machine": f"{' and '.join(machines)}, {len(jobs)} cores, {one.device}"}
    tail |= {"load": max(record.facts.get("load", 0.0) for record in records), "budget": one.seconds}
    tail |= {"reference_agrees": target.facts.get("agree"), "timescale_ps": target.timescale}
    return head | row | tail, curves


def left(jobs: Sequence[Job]) -> list[Record]:
    """What the blocks left."""
    return [Record.read(Path(job.record)) for job in jobs]
