"""The commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timewarp.cli.ending import done
from timewarp.cli.options import Checkpoint, Kelvin, Limit, On, Out, Resume, Seed
from timewarp.settings import Chart, DataSettings, Device, SettingsError, TrainSettings


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
    done("data", settings)


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
    done("train", settings)


def _both(out: Path | None) -> str:
    return "neither" if out is None else "both"
