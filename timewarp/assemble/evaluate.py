"""`timewarp evaluate`: how a checkpoint does on peptides it has not seen, one run of `sample` each."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import median

import torch

from timewarp.assemble.acceptance import kish
from timewarp.assemble.energy import energy_of
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.sample import sample
from timewarp.atomic import write_atomically
from timewarp.resources import checkpoint_path
from timewarp.settings import EvaluateSettings, Progress, Report, SampleSettings, Stop
from timewarp.training.checkpoint import Checkpoint

DRAWS = 2000  # of the flow, for the Kish effective sample size


def evaluate(settings: EvaluateSettings, progress: Progress, stop: Stop) -> Report:
    """Build and sample each sequence for `seconds`, and leave `evaluate.json` with a row for each.

    With `resume`, sequences that have a row already are left alone.
    """
    from timewarp.md.system import prepare_sequence, write_pdb

    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    table = out / "evaluate.json"
    rows = json.loads(table.read_text()) if settings.resume and table.exists() else []
    done = {row["peptide"] for row in rows}
    flow = load_flow(Checkpoint.load(checkpoint_path(settings.checkpoint).with_suffix("")))
    for number, sequence in enumerate(settings.sequences):
        if stop():
            break
        if sequence in done:
            continue
        share = number / len(settings.sequences)
        progress(share, sequence)
        prepared = prepare_sequence(sequence)
        pdb = out / f"{sequence}.pdb"
        write_pdb(prepared.topology, prepared.positions, pdb)
        run = SampleSettings(
            pdb=pdb, out=out / sequence, seconds=settings.seconds, chains=settings.chains, seed=settings.seed,
            checkpoint=settings.checkpoint, temperature=settings.temperature, device=settings.device,
        )  # fmt: skip
        if run.out.exists():
            run = replace(run, resume=True)
        report = sample(run, _named(sequence, share, progress), stop)
        energy, molecule, _ = energy_of(prepared, settings.temperature)
        peptide = Peptide.of(molecule, settings.temperature, potential=energy, seed=settings.seed)
        row = {name: report[name] for name in ("peptide", "atoms", "acceptance", "energy_evaluations", "seconds")}
        row["kish_ess"] = _kish(flow, peptide, settings.seed)
        row |= {"ess": report["ess"]["min"], "ess_per_second": report["ess_per_second"], "verdict": report["verdict"]}
        row["rhat"] = report["rhat"].get("max")
        rows.append(row | {"sequence": sequence})
        write_atomically(table, (json.dumps(rows, indent=1) + "\n").encode())
    return {"message": _table(rows)}


def _named(sequence: str, share: float, progress: Progress) -> Progress:
    return lambda _, text: progress(share, f"{sequence}: {text}")


@torch.no_grad()
def _kish(flow, peptide: Peptide, seed: int) -> float:
    rng = torch.Generator().manual_seed(seed)
    proposal = bound(flow, peptide)
    start = peptide.molecule.reference.float()[None]
    state, log_prob = proposal(start).sample(DRAWS, rng)
    weights = -peptide.potential(state.positions[:, 0]).double() - log_prob[:, 0].double()
    return kish(weights.nan_to_num(-torch.inf, -torch.inf, -torch.inf))


def _table(rows: list[dict]) -> str:
    lines = [f"{'peptide':<12} {'atoms':>5} {'acceptance':>10} {'Kish ESS':>9} {'ESS':>7} {'ESS/s':>7} {'R-hat':>6}"]
    for row in rows:
        rhat = row["rhat"] if row["rhat"] is not None else float("nan")
        lines.append(
            f"{row['sequence']:<12} {row['atoms']:>5} {row['acceptance']:>10.1%} {row['kish_ess']:>9.3f} "
            f"{row['ess']:>7.0f} {row['ess_per_second']:>7.2f} {rhat:>6.3f}"
        )
    if rows:
        rates = [row["acceptance"] for row in rows]
        lines.append(f"median acceptance {median(rates):.1%}, lowest {min(rates):.1%}, of {len(rates)} peptides")
    return "\n".join(lines)
