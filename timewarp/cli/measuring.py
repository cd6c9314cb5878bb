"""The commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timewarp.cli.ending import done
from timewarp.cli.options import Chains, Checkpoint, Kelvin, On, Out, Patience, Resume, Seed
from timewarp.settings import BenchSettings, CompareSettings, Device, EvaluateSettings, RaceSettings, SettingsError


def evaluate(
    sequences: Annotated[list[str], typer.Argument(metavar="SEQUENCE...", help="Sequences of 1 to 10 residues.")],
    out: Out,
    seconds: Annotated[float, typer.Option(metavar="S", help="Of sampling, for each peptide.")] = 60.0,
    budget: Annotated[
        int, typer.Option(metavar="N", help="Energy evaluations at which distances are measured; 0 for none.")
    ] = EvaluateSettings.budget,
    reference_ns: Annotated[
        float | None, typer.Option(metavar="NS", help="OpenMM MD to compare with, in place of parallel tempering.")
    ] = None,
    reference_seconds: Patience = EvaluateSettings.reference_seconds,
    ot_frames: Annotated[
        int, typer.Option(metavar="N", help="Frames of each side of a distance; fewer are faster, and raise it.")
    ] = EvaluateSettings.ot_frames,
    seeds: Annotated[int, typer.Option(metavar="K", help="Seeds, from --seed on.")] = EvaluateSettings.seeds,
    adapt: Annotated[
        float | None, typer.Option(metavar="M", help="Minutes of adaptation to each peptide before it is measured.")
    ] = EvaluateSettings.adapt,
    proposals: Annotated[
        bool, typer.Option(help="Also distances of as many draws as the budget, which take longest.")
    ] = EvaluateSettings.proposals,
    chains: Chains = EvaluateSettings.chains,
    checkpoint: Checkpoint = EvaluateSettings.checkpoint,
    temperature: Kelvin = EvaluateSettings.temperature,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Resume = False,
) -> None:
    """Measure a checkpoint on peptides: acceptance, effective samples, distances from reference ensembles."""
    settings = EvaluateSettings(
        sequences=tuple(sequences), out=out, seconds=seconds, budget=budget, reference_ns=reference_ns,
        reference_seconds=reference_seconds, ot_frames=ot_frames, seeds=seeds, adapt=adapt, proposals=proposals,
        chains=chains, checkpoint=checkpoint, temperature=temperature, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    done("evaluate", settings)


def bench(
    out: Out,
    sequences: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PDB]...",
            help="Files or sequences; the bench.json files of --compare; of 23, 43, 85, 150 atoms if absent.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Such as md-tuned or sample; may be repeated.")
    ] = None,
    checkpoint: Annotated[
        list[str], typer.Option(metavar="NAME", help="Of the package, or a path to a .json; may be repeated.")
    ] = RaceSettings.checkpoints,  # type: ignore[assignment]
    chains: Chains = RaceSettings.chains,
    reference_frames: Annotated[
        int, typer.Option(metavar="N", help="Frames of each half of the reference; few are quick, and coarse.")
    ] = RaceSettings.reference_frames,
    reference_seconds: Patience = RaceSettings.reference_seconds,
    dynamics_seconds: Annotated[
        float, typer.Option(metavar="S", help="Of batched dynamics that tells how often MD would cross; 0 for none.")
    ] = RaceSettings.dynamics_seconds,
    temperature: Kelvin = RaceSettings.temperature,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Peptides and blocks of chains N at a time, through dask.")
    ] = RaceSettings.workers,
    dask: Annotated[
        str | None, typer.Option(metavar="SCHEDULER", help="The same on the workers of a dask scheduler, host:port.")
    ] = RaceSettings.dask,
    compare: Annotated[bool, typer.Option("--compare", help="Show several bench.json on one page.")] = False,
    energy: Annotated[bool, typer.Option("--energy", help="The batched energy against OpenMM in a loop.")] = False,
    md: Annotated[bool, typer.Option("--md", help="Aggregate ns/day of the batched dynamics against OpenMM.")] = False,
    batch: Annotated[
        int, typer.Option(help="Configurations a call of --energy; replicas of a process of --md.")
    ] = BenchSettings.batch,
    threads: Annotated[int | None, typer.Option(help="Cores of each side; all if absent.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each side of --energy.")] = BenchSettings.rounds,
    slice: Annotated[float, typer.Option(metavar="S", help="Seconds a turn of --energy.")] = BenchSettings.slice,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Of sampling, each method, 60 if absent; of each side with --md, of all with --energy."
        ),
    ] = None,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Resume = False,
) -> None:
    """Measure effective samples a second here: OpenMM MD, tempering and timewarp; or, with --energy, the energy."""
    named = tuple(sequences or ())
    if (energy or md) and compare:
        raise SettingsError("timewarp bench: expected one of --energy, --md and --compare, got both")
    if compare:
        done("compare", CompareSettings(out=out, files=tuple(Path(name) for name in named)))
    elif energy or md:
        chosen = {"sequences": named} if named else {}
        settings = BenchSettings(
            out=out, energy=energy, md=md, batch=batch, threads=threads, rounds=rounds, slice=slice, seconds=seconds,
            seed=seed, device=device, resume=resume, **chosen,
        )  # fmt: skip
        done("bench", settings)
    else:
        race = RaceSettings(
            out=out, peptides=named, methods=tuple(method or ()), checkpoints=tuple(checkpoint), chains=chains,
            cores=threads, reference_frames=reference_frames, reference_seconds=reference_seconds,
            dynamics_seconds=dynamics_seconds, temperature=temperature, seed=seed, device=device,
            resume=resume, seconds=RaceSettings.seconds if seconds is None else seconds, workers=workers, dask=dask,
        )  # fmt: skip
        done("race", race)
