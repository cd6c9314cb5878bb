"""`timewarp evaluate`: how a checkpoint does on peptides it has not seen, one row a peptide and seed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from timewarp.assemble.adapt import NAME, chart_of
from timewarp.assemble.budget import CLIPPED, Counted, drawn
from timewarp.assemble.costing import cost_of
from timewarp.assemble.directory import claimed
from timewarp.assemble.energy import energy_of
from timewarp.assemble.evaluation import figures
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.fusing import ready
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.sample import sample
from timewarp.assemble.scores import distances
from timewarp.assemble.yardsticks import QUICK, Recipe, Stopped, yardstick
from timewarp.atomic import write_atomically
from timewarp.claim import compare
from timewarp.energy import Potential
from timewarp.resources import checkpoint_path
from timewarp.settings import EvaluateSettings, Progress, Report, SampleSettings, Stop
from timewarp.training.checkpoint import Checkpoint

DRAWS = 2000  # of the flow for the Kish effective sample size, where no distances are wanted
PATIENT = 600.0  # s for a reference; with less it is a quick one
TABLE, OPTIONS = "evaluate.json", "options.json"


def evaluate(settings: EvaluateSettings, progress: Progress, stop: Stop) -> Report:
    """Measure the checkpoint on each sequence with each seed, and leave `evaluate.json` with a row for each pair.

    A row has the run of `sample` (`acceptance`, `ess`, `energy_evaluations`, `seconds`, ...), what a proposal takes
    (`proposal_milliseconds`, and of it the shares `proposal_flow`, `_chart`, `_energy`), and of as many draws of the
    flow as `budget` the Kish sample size, and distances from a reference ensemble with their floors: `e_w2`,
    `t_w2`, `tica_w2` of the exact chain that spends the budget, all evaluations counted; with `_proposals` that of
    `budget` draws, if `proposals`; with `snis_` those of importance resampling of what the budget affords. All of it
    is of the flow that was adapted to the peptide, with `adapt`. With `resume`, rows that are there stay.
    A peptide that fails is told of, and does not keep the others from being measured.

    Raises:
        InputError: if a sequence cannot be built, before anything is measured.
        DirectoryRefused: if `out` cannot serve, or holds an evaluation of another checkpoint or other options.
        RuntimeError: if every peptide failed.
    """
    from timewarp.md.sequence import parse
    from timewarp.md.system import title

    sequences = list(dict.fromkeys(title(parse(sequence)) for sequence in settings.sequences))
    flow = load_flow(Checkpoint.load(checkpoint_path(settings.checkpoint).with_suffix("")))
    names = ("checkpoint", "temperature", "chains", "budget", "ot_frames", "reference_ns", "reference_seconds",
             "seconds", "adapt", "proposals")  # fmt: skip
    options = {name: getattr(settings, name) for name in names}
    with claimed(settings.out, (TABLE, OPTIONS), settings.resume):
        record, table = settings.out / OPTIONS, settings.out / TABLE
        if record.exists():
            compare(settings.out, json.loads(record.read_text()), options)
        write_atomically(record, json.dumps(options).encode() + b"\n")
        rows: list[dict[str, Any]] = json.loads(table.read_text()) if table.exists() else []
        done, failed = {(row["sequence"], row["seed"]) for row in rows}, {}
        left = [(s, settings.seed + k) for k in range(settings.seeds) for s in sequences]
        left = [pair for pair in left if pair not in done]
        for number, (sequence, seed) in enumerate(left):
            if stop():
                break
            one = replace(settings, seed=seed)
            told = _named(f"{sequence}, seed {seed}", number / len(left), progress)
            try:
                row = _row(one, sequence, flow, told, stop)
            except Stopped:
                break
            except (ArithmeticError, RuntimeError, ValueError) as error:
                failed[sequence] = " ".join(str(error).split())
                continue
            if row is None:
                break
            rows.append(row)
            write_atomically(table, (json.dumps(rows, indent=1) + "\n").encode())
        if failed and not rows:
            raise RuntimeError(f"no peptide could be measured; {next(iter(failed))}: {next(iter(failed.values()))}")
        return {"message": figures(rows, failed, settings.budget, settings.ot_frames)}


def _named(name: str, share: float, progress: Progress) -> Progress:
    return lambda _, text: progress(share, f"{name}: {text}")


def _row(settings: EvaluateSettings, sequence: str, flow, progress: Progress, stop: Stop) -> dict[str, Any] | None:
    """Everything measured on one peptide with one seed; None if it was asked to stop meanwhile."""
    from timewarp.md.system import prepare, prepare_sequence, write_pdb

    progress(0.0, "building")
    pdb = settings.out / f"{sequence}.pdb"
    if not pdb.exists():
        built = prepare_sequence(sequence)
        write_pdb(built.topology, built.positions, pdb)
    prepared = prepare(pdb)  # as `sample` and `bench` read it
    run = SampleSettings(
        pdb=pdb, out=settings.out / f"{sequence}-{settings.seed}", seconds=settings.seconds, chains=settings.chains,
        seed=settings.seed, checkpoint=settings.checkpoint, temperature=settings.temperature, device=settings.device,
        adapt=settings.adapt, resume=True,
    )  # fmt: skip
    report = sample(run, progress, stop)
    if stop():
        return None
    row = {name: report[name] for name in ("peptide", "atoms", "acceptance", "energy_evaluations", "seconds")}
    row |= {"sequence": sequence, "seed": settings.seed, "ess": report["ess"]["min"]}
    row |= {"ess_per_second": report["ess_per_second"], "verdict": report["verdict"], "rhat": report["rhat"]["max"]}
    row["sampling_evaluations"] = report["energy_evaluations"]
    adapted = Checkpoint.load(run.out / NAME) if settings.adapt else None
    flow = load_flow(adapted) if adapted else flow
    progress(0.0, "timing proposals")
    energy, molecule, _ = energy_of(prepared, settings.temperature, device=settings.device.resolve())
    if isinstance(energy, Potential):
        energy.compiled = energy.device.type == "cpu" and ready(energy)
        cost = cost_of(flow.to(energy.device), molecule, energy, None, run.particles)
        flow.to("cpu")
        row |= {f"proposal_{name}": value for name, value in cost.items()}
    row |= _at_budget(settings, prepared, flow, adapted, progress, stop)
    return row


def _at_budget(
    settings: EvaluateSettings, prepared, flow, adapted: Checkpoint | None, progress: Progress, stop: Stop
) -> dict[str, Any]:
    """Kish sample size, and distances from the reference at the budget, with what they cost."""
    import mdtraj

    began = time.monotonic()
    reference = None
    if settings.budget:
        recipe = recipe_of(settings)
        device = settings.device.resolve()
        reference = yardstick(prepared, settings.temperature, recipe, progress, stop, device)
        waited, began = time.monotonic() - began, time.monotonic()
    progress(0.0, "drawing from the flow")
    energy, molecule, _ = energy_of(prepared, settings.temperature)
    counted = Counted(energy)
    chart = chart_of(adapted, prepared, molecule, settings.temperature) if adapted else None
    peptide = Peptide.of(molecule, settings.temperature, potential=counted, whitening=chart, seed=settings.seed)
    setup = counted.evaluations
    rng = torch.Generator().manual_seed(settings.seed)
    enough = settings.budget if settings.budget and not settings.proposals else None
    start = molecule.reference.float()
    draws = drawn(bound(flow, peptide), counted, start, settings.budget or DRAWS, rng, enough=enough)
    weighted = draws.log_weight is not None
    row: dict[str, Any] = {"kish_ess": draws.kish() if weighted else None}
    if reference is None:
        return row
    row |= {"snis_kish_ess": draws.kish(CLIPPED) if weighted else None, "budget": settings.budget}
    row |= {"evaluations_a_proposal": draws.cost, "setup_evaluations": setup, "draw_seconds": time.monotonic() - began}
    began = time.monotonic()
    affordable = max(1, int(settings.budget / draws.cost))
    row["energy_evaluations"] = affordable * draws.cost
    samples = {"{}": draws.chain(affordable, np.random.default_rng(settings.seed))}
    if settings.proposals:
        samples["{}_proposals"] = draws.chain(settings.budget, np.random.default_rng(settings.seed))
    if weighted:
        samples["snis_{}"] = draws.resampled(affordable, np.random.default_rng(settings.seed))
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    for form, (positions, energies) in samples.items():
        progress(0.0, f"optimal transport, {form.format('w2')}")
        if stop():
            raise Stopped
        keep = np.linspace(0, len(positions) - 1, min(len(positions), settings.ot_frames)).astype(int)
        found = distances(topology, reference.tica, _half(reference, 0), (positions[keep], energies[keep]))
        row |= {form.format(name): value for name, value in found.items()}
    row |= {f"floor_{name}": value for name, value in reference.floors.items()}
    row |= {"reference": reference.facts["method"], "reference_agrees": reference.facts.get("agree")}
    row["reference_frames"] = reference.energy.shape[1]  # fewer than asked for where its time was over
    return row | {"reference_seconds": waited, "transport_seconds": time.monotonic() - began}


def recipe_of(settings: EvaluateSettings) -> Recipe:
    """How the reference is made; with few frames or little time, slow coordinates come from less dynamics."""
    how = Recipe() if settings.reference_seconds >= PATIENT else QUICK
    if settings.ot_frames < 1000:
        how = replace(how, lag=2.0, starts=32)
    nanoseconds = settings.reference_ns or 0.0
    return replace(how, frames=settings.ot_frames, nanoseconds=nanoseconds, seconds=settings.reference_seconds)


def _half(reference, side: int):
    return reference.positions[side], reference.energy[side]
