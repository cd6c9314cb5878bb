"""The command `timewarp`: options in, one call, exit status out (0 done, 1 failed, 2 bad input).

A command turns its options into settings and hands them over with a progress bar and a way to be stopped.
Everything heavy is imported inside a command.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

from timewarp.settings import (
    AdaptSettings,
    BenchSettings,
    Chart,
    CompareSettings,
    DataSettings,
    Device,
    EvaluateSettings,
    ExploreSettings,
    MDSettings,
    Protocol,
    RaceSettings,
    RunSettings,
    SampleSettings,
    SettingsError,
    TrainSettings,
    Until,
)
from timewarp.watch import watch

app = typer.Typer(
    help="Enhanced sampling of peptides by a transferable normalizing flow, exact for the OpenMM potential.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Pdb = Annotated[Path, typer.Argument(metavar="PDB", help="A PDB or mmCIF file of a peptide of 1 to 10 residues.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Directory for the results; a new one, or see --resume.")]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers.")]
On = Annotated[Device, typer.Option(help="Where to compute; auto is CUDA where there is one.")]
Seconds = Annotated[float | None, typer.Option(metavar="S", help="Wall-clock limit; 60 where --steps is absent.")]
Limit = Annotated[float | None, typer.Option(metavar="S", help="Wall-clock limit.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in DIR, if there is one.")]
Tests = Annotated[int | None, typer.Option(metavar="N", help="Tested proposals a chain, in all.")]
Chains = Annotated[int, typer.Option(metavar="C", help="Chains side by side.")]
Kelvin = Annotated[float, typer.Option(metavar="K", help="Temperature in kelvin.")]
Patience = Annotated[
    float, typer.Option(metavar="S", help="After which a reference is what it is; the rest is in its errors.")
]
Checkpoint = Annotated[str, typer.Option(metavar="NAME", help="A checkpoint of the package, or a path to a .json.")]


@app.command()
def build(
    sequence: Annotated[str, typer.Argument(metavar="SEQUENCE", help="AVSA, or names: ACE-ALA-HIP-NME.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The PDB file to write.")],
) -> None:
    """Build a PDB file of a sequence."""
    from timewarp.md.system import prepare_sequence, write_pdb

    prepared = prepare_sequence(sequence)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_pdb(prepared.topology, prepared.positions, out)
    print(f"wrote {out}: {prepared.sequence}, {len(prepared.positions)} atoms")


@app.command()
def sample(
    pdb: Pdb,
    out: Out,
    steps: Tests = None,
    seconds: Seconds = None,
    chains: Chains = SampleSettings.chains,
    checkpoint: Checkpoint = SampleSettings.checkpoint,
    width: Annotated[int, typer.Option(metavar="B", help="Proposals made at once for a chain.")] = SampleSettings.width,
    particles: Annotated[
        int, typer.Option(metavar="M", help="Draws of bonds and angles for each proposal, picked by weight.")
    ] = SampleSettings.particles,
    anneal: Annotated[
        int, typer.Option(metavar="K", help="Steps by which a proposal relaxes before it is tested.")
    ] = SampleSettings.anneal,
    adapt: Annotated[
        float | None, typer.Option(metavar="M", help="Minutes of adaptation to the peptide before the first frame.")
    ] = SampleSettings.adapt,
    warm_up: Annotated[
        int, typer.Option(metavar="N", help="Tests of each chain before its first frame.")
    ] = SampleSettings.warm_up,
    until: Annotated[
        Until | None, typer.Option(help="Stop when the chains have converged; an hour at most where no limit is given.")
    ] = SampleSettings.until,
    verify: Annotated[
        bool, typer.Option("--verify", help="OpenMM, in double precision, has the last word on every accepted move.")
    ] = SampleSettings.verify,
    temperature: Kelvin = SampleSettings.temperature,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Resume = False,
) -> None:
    """Sample the Boltzmann distribution of a peptide, exactly."""
    settings = SampleSettings(
        pdb=pdb, out=out, steps=steps, seconds=_limit(steps, seconds, 3600.0 if until else 60.0), chains=chains,
        checkpoint=checkpoint, width=width, adapt=adapt, particles=particles, anneal=anneal, warm_up=warm_up,
        until=until, verify=verify, temperature=temperature, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    _done("sample", settings)


@app.command()
def adapt(
    pdb: Pdb,
    out: Out,
    minutes: Annotated[float, typer.Option(metavar="M", help="Wall-clock minutes to learn.")] = AdaptSettings.minutes,
    checkpoint: Checkpoint = AdaptSettings.checkpoint,
    temperature: Kelvin = AdaptSettings.temperature,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Annotated[bool, typer.Option("--resume", help="Adapt the checkpoint in DIR further.")] = False,
) -> None:
    """Adapt a checkpoint to one peptide; `sample --checkpoint DIR/adapted.json` uses it."""
    settings = AdaptSettings(
        pdb=pdb, out=out, minutes=minutes, checkpoint=checkpoint, temperature=temperature, seed=seed, device=device,
        resume=resume,
    )  # fmt: skip
    _done("adapt", settings)


@app.command()
def explore(
    pdb: Pdb,
    out: Out,
    steps: Tests = None,
    seconds: Seconds = None,
    chains: Chains = ExploreSettings.chains,
    checkpoint: Checkpoint = ExploreSettings.checkpoint,
    rise: Annotated[float, typer.Option(help="Most a move may raise the energy, kJ/mol.")] = ExploreSettings.rise,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Then exact chains from the states, as long again, for their populations.")
    ] = ExploreSettings.upgrade,
    temperature: Kelvin = ExploreSettings.temperature,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Resume = False,
) -> None:
    """Find the states of a peptide fast; what it writes is not exact, and says so."""
    settings = ExploreSettings(
        pdb=pdb, out=out, steps=steps, seconds=_limit(steps, seconds), chains=chains, checkpoint=checkpoint,
        rise=rise, upgrade=upgrade, temperature=temperature, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    _done("explore", settings)


@app.command()
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
    _done("evaluate", settings)


@app.command()
def md(
    pdb: Pdb,
    out: Out,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Integration steps a chain, in all.")] = None,
    seconds: Seconds = None,
    chains: Chains = MDSettings.chains,
    protocol: Annotated[Protocol, typer.Option(help="paper: 0.5 fs; tuned: 4 fs.")] = Protocol.TUNED,
    interval: Annotated[float, typer.Option(metavar="PS", help="Time between saved frames.")] = MDSettings.interval,
    temperature: Kelvin = MDSettings.temperature,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Resume = False,
) -> None:
    """Run Langevin molecular dynamics with OpenMM, as a baseline."""
    settings = MDSettings(
        pdb=pdb, out=out, steps=steps, seconds=_limit(steps, seconds), chains=chains, protocol=protocol,
        interval=interval, temperature=temperature, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    _done("md", settings)


@app.command()
def data(
    sequences: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SEQUENCE...",
            help="Sequences, files with one a line, all-dipeptides, or random-3-8x200 for 200 of 3 to 8 residues.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory for the results; a new one, or see --resume.")
    ] = None,
    exclude: Annotated[
        list[Path], typer.Option(metavar="FILE", help="A list of sequences that are never made; may be repeated.")
    ] = DataSettings.exclude,  # type: ignore[assignment]
    walkers: Annotated[int, typer.Option(help="Chains of each peptide, side by side.")] = DataSettings.walkers,
    frames: Annotated[int, typer.Option(help="Frames kept of each chain.")] = DataSettings.frames,
    warm_up: Annotated[int, typer.Option(help="Moves of a chain before its first frame.")] = DataSettings.warm_up,
    tempering: Annotated[
        bool, typer.Option(help="Each chain is the coldest of a ladder, in place of a hot start.")
    ] = DataSettings.tempering,
    temperature: Kelvin = DataSettings.temperature,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the molecules alone, for a machine without OpenMM.")
    ] = None,
    from_export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Take the molecules from such a directory.")
    ] = None,
    redraw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw the frames of its shards anew, by a checkpoint's chains.")
    ] = None,
    checkpoint: Checkpoint = DataSettings.checkpoint,
    flow: Annotated[
        str | None, typer.Option(metavar="NAME", help="Chains start at draws of this checkpoint, and mix them in.")
    ] = None,
    seconds: Limit = None,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Resume = False,
) -> None:
    """Make training data for many peptides."""
    if (out is None) == (export is None):
        raise SettingsError("expected a directory for the results, --out DIR or --export DIR, got " + _both(out))
    settings = DataSettings(
        sequences=tuple(sequences or ()), exclude=tuple(exclude), out=out or export,  # type: ignore[arg-type]
        walkers=walkers, frames=frames, warm_up=warm_up, tempering=tempering, temperature=temperature,
        export=export is not None, from_export=from_export, redraw=redraw, checkpoint=checkpoint, flow=flow,
        seconds=seconds, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    _done("data", settings)


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A directory made by `timewarp data`.")],
    out: Out,
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")] = TrainSettings.name,
    chart: Annotated[Chart, typer.Option(help="Coordinates of the flow.")] = Chart.INTERNAL,
    velocities: Annotated[
        int | None, typer.Option(help="Velocity channels, 0 to 3; 0 where absent, 3 in the Cartesian chart.")
    ] = TrainSettings.velocities,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Training steps, in all.")] = None,
    batch: Annotated[int, typer.Option(help="States a step.")] = TrainSettings.batch,
    molecules: Annotated[int, typer.Option(help="Peptides that these are of.")] = TrainSettings.molecules,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = TrainSettings.learning_rate,
    horizon: Annotated[int, typer.Option(help="Steps over which it falls; 0 keeps it.")] = TrainSettings.horizon,
    likelihood: Annotated[float, typer.Option(help="Weight of the likelihood.")] = TrainSettings.likelihood,
    spread: Annotated[float, typer.Option(help="Weight of the spread of the log weights.")] = TrainSettings.spread,
    acceptance: Annotated[float, typer.Option(help="Weight of the acceptance term.")] = TrainSettings.acceptance,
    entropy: Annotated[float, typer.Option(help="Weight of the entropy term.")] = TrainSettings.entropy,
    own_from: Annotated[int, typer.Option(help="Step from which these two count.")] = TrainSettings.own_from,
    validation: Annotated[
        list[str], typer.Option(metavar="SEQUENCE", help="A peptide to hold out, may be repeated; a tenth if absent.")
    ] = TrainSettings.validation,  # type: ignore[assignment]
    start: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with the weights of a checkpoint, or of a .json.")
    ] = TrainSettings.start,
    seconds: Limit = None,
    seed: Seed = 0,
    device: On = Device.AUTO,
    resume: Resume = False,
) -> None:
    """Train a flow; on several GPUs: torchrun --nproc-per-node N -m timewarp.cli train ..."""
    settings = TrainSettings(
        data=data, out=out, name=name, chart=chart, velocities=velocities, steps=steps, batch=batch,
        molecules=molecules, start=start, learning_rate=learning_rate, horizon=horizon,
        likelihood=likelihood, spread=spread, acceptance=acceptance, entropy=entropy, own_from=own_from,
        validation=tuple(validation), seconds=seconds, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    _done("train", settings)


@app.command()
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
        _done("compare", CompareSettings(out=out, files=tuple(Path(name) for name in named)))
    elif energy or md:
        chosen = {"sequences": named} if named else {}
        settings = BenchSettings(
            out=out, energy=energy, md=md, batch=batch, threads=threads, rounds=rounds, slice=slice, seconds=seconds,
            seed=seed, device=device, resume=resume, **chosen,
        )  # fmt: skip
        _done("bench", settings)
    else:
        race = RaceSettings(
            out=out, peptides=named, methods=tuple(method or ()), checkpoints=tuple(checkpoint), chains=chains,
            cores=threads, reference_frames=reference_frames, reference_seconds=reference_seconds,
            dynamics_seconds=dynamics_seconds, temperature=temperature, seed=seed, device=device,
            resume=resume, seconds=RaceSettings.seconds if seconds is None else seconds, workers=workers, dask=dask,
        )  # fmt: skip
        _done("race", race)


@app.command()
def info() -> None:
    """Say which versions, platforms, checkpoints and example peptides there are."""
    from timewarp.inventory import inventory

    for name, value in inventory():
        print(f"{name:<12} {value}")


def main() -> None:
    """The entry point: runs a command and ends the process with its status."""
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: list[str]) -> int:
    """Run a command and return its status; an error is one line on stderr (with TIMEWARP_DEBUG=1 a traceback too)."""
    debug = os.environ.get("TIMEWARP_DEBUG") == "1"
    if not debug:
        warnings.simplefilter("ignore")
    try:
        return app(arguments or ["--help"], prog_name="timewarp", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        from timewarp.failure import describe

        status, line = describe(error)
        _say(f"timewarp: {line}")
        return status


def _done(work: str, settings: RunSettings) -> None:
    """Do it, and print what there is to be said at the end."""
    for line in watch(work, settings, _say):
        print(line)


def _say(line: str) -> None:
    """A line for a person, on stderr."""
    print(line, file=sys.stderr, flush=True)


def _both(out: Path | None) -> str:
    return "neither" if out is None else "both"


def _limit(steps: int | None, seconds: float | None, otherwise: float = 60.0) -> float | None:
    return otherwise if steps is None and seconds is None else seconds


if __name__ == "__main__":
    main()
