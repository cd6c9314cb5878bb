"""`timewarp bench --energy`: configurations a second of the batched potential, against OpenMM in a loop."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from timewarp.assemble.benchmarks.figure import draw, exponents
from timewarp.assemble.benchmarks.openmm_side import openmm_ways
from timewarp.assemble.benchmarks.rates import Interrupted, Way, fastest, rates, ratio
from timewarp.assemble.directory import claimed
from timewarp.atomic import write_atomically
from timewarp.energy import Potential
from timewarp.energy.compiled import works
from timewarp.settings import BenchSettings, Progress, Report, Stop
from timewarp.state import Positions

KINDS = (("float32", True), ("float32", False), ("float64", True))  # precision, compiled
WIDTHS = (0.001, 0.003, 0.006)  # nm, by which the configurations are distorted that errors are taken over
LOOP = 16  # configurations that OpenMM evaluates at a time
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)  # of the curve of cost against batch size


def bench_energy(settings: BenchSettings, progress: Progress, stop: Stop) -> Report:
    """Measure each peptide, in turns with OpenMM on the same cores, and leave `energy.json` with its rows.

    What is measured is written after each peptide; `resume` goes on with those that have no rows yet. The table
    `cost.json` and the figure `cost.png` have the cost against atoms and batch size, with the fitted exponents.

    Raises:
        InputError: if a sequence cannot be built, before anything is measured.
        DirectoryRefused: if `out` cannot serve.
    """
    from timewarp.md.system import prepare_sequence

    began = time.monotonic()
    device = settings.device.resolve()
    cores = settings.threads or len(os.sched_getaffinity(0))

    def over() -> bool:
        return stop() or (settings.seconds is not None and time.monotonic() - began > settings.seconds)

    with claimed(settings.out, ("energy.json",), settings.resume), _threads(cores):
        table, costs = settings.out / "energy.json", settings.out / "cost.json"
        rows: list[dict] = json.loads(table.read_text()) if table.exists() else []
        curves: list[dict] = json.loads(costs.read_text())["curves"] if costs.exists() else []
        done = {row["peptide"] for row in rows}
        peptides = [(name, prepare_sequence(name)) for name in settings.sequences if name not in done]
        write_atomically(table, _text(rows))
        for number, (name, prepared) in enumerate(peptides):
            try:
                found, curve = _peptide(
                    name, prepared, device, cores, settings, over,
                    lambda text, number=number: progress(number / len(peptides), text),
                )  # fmt: skip
            except Interrupted:
                break
            rows, curves = rows + found, curves + curve
            write_atomically(table, _text(rows))
            write_atomically(costs, _text({"curves": curves, "exponents": exponents(rows, curves)}))
            draw(rows, curves, settings.out / "cost.png")
    return {"rows": rows, "exponents": exponents(rows, curves), "message": _table(rows, curves)}


def _peptide(name, prepared, device, cores, settings, stop, said) -> tuple[list[dict], list[dict]]:
    from timewarp.md.export import export

    molecule = export(prepared.topology, prepared.system, prepared.positions)
    rng = torch.Generator().manual_seed(settings.seed)
    start = torch.as_tensor(prepared.positions, dtype=torch.float64)
    noise = torch.randn(settings.batch, *start.shape, generator=rng, dtype=torch.float64)
    positions = start + noise * torch.tensor(WIDTHS).repeat(settings.batch)[: settings.batch, None, None]
    potentials, first = {}, {}
    for dtype, compiled in KINDS:
        said(f"{name}: first call in {dtype}{', compiled' if compiled else ''}")
        potential = Potential(molecule, dtype=getattr(torch, dtype), device=device, compiled=compiled)
        began = time.monotonic()
        for gradient in (False, True):
            if stop():
                raise Interrupted
            potential.kilojoules(positions[:2].to(device), gradient)
        kind = f"{dtype}, {'compiled' if compiled and works() else 'eager'}"  # without a compiler it is not
        potentials[kind], first[kind] = potential, time.monotonic() - began
    measured: dict[bool, dict[str, list[float]]] = {}
    theirs: dict[bool, str] = {}
    with ThreadPoolExecutor(cores) as pool:
        for gradient in (False, True):
            said(f"{name}: energy{' and forces' if gradient else ''}")
            sides = openmm_ways(prepared.system, positions[:LOOP], gradient, cores, pool)
            ours = {kind: _batch(p, positions, gradient) for kind, p in potentials.items()}
            measured[gradient] = rates(ours | sides, settings.rounds, settings.slice, stop)
            theirs[gradient] = fastest({side: measured[gradient][side] for side in sides})
    rows = []
    for kind, potential in potentials.items():
        dtype, mode = kind.split(", ")
        energy, force = _errors(prepared.system, potential, positions[: 3 * len(WIDTHS)])
        row = {"peptide": name, "atoms": molecule.atoms, "device": device, "dtype": dtype, "mode": mode}
        row |= {"threads": cores, "batch": settings.batch}
        for gradient, prefix in ((False, ""), (True, "gradient_")):
            mine, other = measured[gradient][kind], measured[gradient][theirs[gradient]]
            row[f"{prefix}configurations_per_second"] = median(mine)
            row[f"openmm_{prefix}configurations_per_second"] = median(other)
            row[f"openmm_{prefix}way"] = theirs[gradient]
            row[f"{prefix}ratio"] = ratio(mine, other)
        row |= {"max_energy_error": energy, "max_force_error": force, "first_call_seconds": first[kind]}
        rows.append(row)
    said(f"{name}: batch sizes")
    return rows, _curve(name, next(iter(potentials.values())), positions, settings, stop)


def _curve(name: str, potential: Potential, positions: Positions, settings, stop) -> list[dict]:
    """Seconds a configuration of batches of several sizes."""
    sizes = [size for size in BATCHES if size <= settings.batch]
    curve = []
    for gradient in (False, True):
        ways = {str(size): _batch(potential, positions[:size], gradient) for size in sizes}
        found = rates(ways, max(1, settings.rounds // 2), settings.slice / 2, stop)
        curve.append({
            "peptide": name, "atoms": potential.atoms, "gradient": gradient, "batches": sizes,
            "seconds": [1 / median(found[str(size)]) for size in sizes],
        })  # fmt: skip
    return curve


def _batch(potential: Potential, positions: Positions, gradient: bool) -> Way:
    there = positions.to(potential.device, potential.dtype)

    def work() -> int:
        potential.kilojoules(there, gradient)
        if there.is_cuda:
            torch.cuda.synchronize()
        return len(there)

    return work


def _errors(system, potential: Potential, positions: Positions) -> tuple[float, float]:
    """Largest error of energy (kJ/mol) and force (kJ/mol/nm) against OpenMM's Reference platform."""
    from timewarp.md.energy import OpenMMEnergy

    rounded = positions.to(potential.dtype).double()  # the same numbers for both
    theirs = OpenMMEnergy(system, platform="Reference").kilojoules(rounded, gradient=True)
    ours = potential.kilojoules(rounded.to(potential.device), gradient=True)
    energy, force = (float((a.cpu() - b).abs().max()) for a, b in zip(ours, theirs) if a is not None and b is not None)
    return energy, force


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _text(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _table(rows: list[dict], curves: list[dict]) -> str:
    lines = [
        f"{'peptide':<12}{'atoms':>6} {'':<18}{'U/s':>9}{'OpenMM':>8}{'ratio':>7}  {'U and F/s':>9}{'OpenMM':>8}"
        f"{'ratio':>7}{'dU':>9}{'dF':>9}"
    ]
    for row in rows:
        cells = [f"{row['peptide']:<12}{row['atoms']:>6} {row['dtype'] + ', ' + row['mode']:<18}"]
        for prefix in ("", "gradient_"):
            ours, theirs = row[f"{prefix}configurations_per_second"], row[f"openmm_{prefix}configurations_per_second"]
            cells.append(f"{ours:>9.0f}{theirs:>8.0f}{row[f'{prefix}ratio']:>7.0f}")
        cells[2] = "  " + cells[2]
        lines.append("".join(cells) + f"{row['max_energy_error']:>9.0e}{row['max_force_error']:>9.0e}")
    if rows:
        threads, ways = rows[0]["threads"], sorted({row["openmm_way"] for row in rows})
        lines.append(
            f"both sides on {threads} core{'s' * (threads > 1)} of the {rows[0]['device']}; OpenMM: {'; '.join(ways)}"
        )
    for name, value in exponents(rows, curves).items():
        lines.append(f"{name}: {value:.2f}")
    return "\n".join(lines)
