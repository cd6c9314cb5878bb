"""`timewarp bench`: all methods on a peptide, one after another, each with all cores and the same time."""

from __future__ import annotations

import json
import os
import platform as host
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timewarp.analysis.speedups import draw
from timewarp.assemble.directory import claimed
from timewarp.assemble.speedup.job import Job
from timewarp.assemble.speedup.judge import judged
from timewarp.assemble.speedup.methods import METHODS, kind
from timewarp.assemble.speedup.processes import Halted, MethodFailed, together
from timewarp.assemble.speedup.ranking import ranked
from timewarp.assemble.speedup.record import Record
from timewarp.assemble.speedup.table import table
from timewarp.assemble.speedup.target import Target
from timewarp.assemble.yardsticks import Recipe, Stopped, yardstick
from timewarp.atomic import write_atomically
from timewarp.claim import compare as matched
from timewarp.resources import checkpoint_path, checkpoints
from timewarp.settings import Progress, RaceSettings, Report, SettingsError, Stop

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

ROWS, OPTIONS, CURVES, WORK = "bench.json", "options.json", "curves.json", "work"
QUICK = Recipe(lag=5.0, starts=64, seconds=400.0)  # of a reference with few frames


def race(settings: RaceSettings, progress: Progress, stop: Stop) -> Report:
    """Measure every method on every peptide, and leave `bench.json`, `curves.json` and figures.

    Each samples for the same time. What it takes before that is not cut short, and counts in its ESS a second.

    A row is written as soon as it is there; with `resume`, rows that are there stay. A method that fails is told of.

    Raises:
        InputError: if a peptide cannot be read or built, before anything is measured.
        SettingsError: if there is no such method.
        ResourceMissing: if there is no such checkpoint.
        DirectoryRefused: if `out` cannot serve, or was begun with other options.
        RuntimeError: if nothing could be measured.
    """
    methods = methods_of(settings)
    names = ("seconds", "cores", "reference_frames", "temperature", "chains", "seed", "device")
    options = {name: getattr(settings, name) for name in names} | {"device": settings.device.resolve()}
    with claimed(settings.out, (ROWS, OPTIONS), settings.resume):
        record, path, curves = (settings.out / name for name in (OPTIONS, ROWS, CURVES))
        if record.exists():
            matched(settings.out, json.loads(record.read_text()), options)
        peptides = [_peptide(word, settings.out) for word in dict.fromkeys(settings.peptides)]
        write_atomically(record, _json(options))
        rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        drawn: dict[str, Any] = json.loads(curves.read_text()) if curves.exists() else {}
        failed: dict[str, str] = {}
        total = len(peptides) * len(methods)
        for number, peptide in enumerate(peptides):
            done = {row["method"] for row in rows if row["peptide"] == peptide.name}
            left = [method for method in methods if method not in done]
            if stop() or not left:
                continue
            told = _within(number * len(methods) / total, 1 / total, peptide.name, progress)
            try:
                for row, curve in _rows(settings, peptide, left, told, stop, failed):
                    rows = ranked([*rows, row])
                    drawn.setdefault(peptide.name, {})[row["method"]] = curve
                    write_atomically(curves, _json(drawn))
                    write_atomically(path, _json(rows))
            except (Halted, Stopped):
                break
        shutil.rmtree(settings.out / WORK, ignore_errors=True)
        if failed and not rows:
            raise RuntimeError(f"nothing could be measured; {next(iter(failed))}: {next(iter(failed.values()))}")
        if rows:
            draw(rows, drawn, settings.out)
        return {"message": table(rows, failed)}


def methods_of(settings: RaceSettings) -> list[str]:
    """The methods asked for, or all; `sample` once for each checkpoint: those asked for and every Cartesian one.

    Raises:
        SettingsError: if there is no such method.
        ResourceMissing: if there is no such checkpoint.
    """
    cartesian = [path.stem for path in checkpoints() if json.loads(path.read_text()).get("kind") == "cartesian"]
    names = list(dict.fromkeys([*settings.checkpoints, *cartesian]))
    for name in names:
        checkpoint_path(name)
    found = []
    for method in settings.methods or METHODS:
        if kind(method) not in METHODS:
            raise SettingsError(f"--method: expected one of {', '.join(METHODS)}, got {method}")
        several = kind(method) == "sample" and method == "sample"
        found += [f"sample:{name}" for name in names] if several else [method]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Peptide:
    name: str
    pdb: Path
    prepared: Prepared


def _peptide(word: str, out: Path) -> _Peptide:
    """From a file, or a sequence, whose structure is then written into `out`."""
    from timewarp.md.system import prepare, prepare_sequence, write_pdb

    if Path(word).suffix or Path(word).is_file():
        return _Peptide(Path(word).stem, Path(word).resolve(), prepare(word))
    prepared = prepare_sequence(word)
    pdb = (out / f"{prepared.sequence}.pdb").resolve()
    if not pdb.exists():
        write_pdb(prepared.topology, prepared.positions, pdb)
    return _Peptide(prepared.sequence, pdb, prepare(pdb))


def _rows(settings: RaceSettings, peptide: _Peptide, methods, progress: Progress, stop: Stop, failed):
    """A row and its curves for each method, as they are done; failures go into `failed`."""
    import mdtraj

    from timewarp.md.baseline import fastest_platform

    few = settings.reference_frames < 1000
    recipe = replace(QUICK if few else Recipe(), frames=settings.reference_frames)
    reference = yardstick(peptide.prepared, settings.temperature, recipe, progress, stop)
    target = Target.of(mdtraj.Topology.from_openmm(peptide.prepared.topology), reference, recipe.every)
    progress(0.0, "comparing the platforms of OpenMM")
    platform = fastest_platform(peptide.prepared, settings.temperature)
    for number, method in enumerate(methods):
        if stop():
            raise Halted
        work = settings.out / WORK
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        load = os.getloadavg()[0]
        jobs = _jobs(settings, peptide, method, platform)
        try:
            records = together(jobs, stop, _told(number, method, settings.seconds, progress))
            row, curves = _judged(records, target, settings, method)
        except (MethodFailed, ValueError, ArithmeticError) as error:
            failed[f"{peptide.name}, {method}"] = " ".join(str(error).split())
            continue
        head = {"peptide": peptide.name, "atoms": len(peptide.prepared.positions), "method": method}
        head |= {"residues": peptide.prepared.topology.getNumResidues(), "seed": settings.seed}
        tail = {"machine": _machine(settings), "load": load, "budget": settings.seconds}
        tail |= {"reference_agrees": target.facts.get("agree"), "timescale_ps": target.timescale}
        yield head | row | tail, curves


def _judged(records: list[Record], target: Target, settings: RaceSettings, method: str):
    return judged(records, target, settings.temperature, biased=kind(method) == "explore")


def _jobs(settings: RaceSettings, peptide: _Peptide, method: str, platform: str) -> list[Job]:
    """One process a core; one in all for a batch on a GPU."""
    device = settings.device.resolve()
    openmm = method.startswith("md-") or method == "exchange"
    count = 1 if device != "cpu" and not openmm else cores_of(settings)
    began = time.time()
    first = settings.checkpoints[0]
    return [
        Job(
            pdb=str(peptide.pdb), method=method, record=str((settings.out / WORK / f"{k}.safetensors").resolve()),
            seconds=settings.seconds, seed=1000 * settings.seed + k, platform=platform,
            temperature=settings.temperature, chains=settings.chains,
            checkpoint=_checkpoint(method.partition(":")[2] or first), device=device, began=began, parent=os.getpid(),
        )
        for k in range(count)
    ]  # fmt: skip


def _checkpoint(name: str) -> str:
    return str(checkpoint_path(name).resolve())


def cores_of(settings: RaceSettings) -> int:
    """The cores asked for, or all that this process may use."""
    return settings.cores or len(os.sched_getaffinity(0))


def _machine(settings: RaceSettings) -> str:
    """The processor, the cores used, and the device."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = host.processor() or host.machine()
    return f"{model}, {cores_of(settings)} cores, {settings.device.resolve()}"


def _within(start: float, width: float, name: str, progress: Progress) -> Progress:
    return lambda share, text: progress(min(1.0, start + width * share), f"{name}: {text}")


def _told(number: int, method: str, seconds: float, progress: Progress):
    return lambda elapsed: progress(number + min(1.0, elapsed / seconds), f"{method}, {elapsed:.0f} of {seconds:g} s")


def _json(value: Mapping[str, Any] | list) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
