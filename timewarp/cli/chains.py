"""The commands that run chains of one peptide, and the one that prepares a checkpoint for it."""

from __future__ import annotations

from typing import Annotated

import typer

from timewarp.cli.ending import done
from timewarp.cli.options import Chains, Checkpoint, Kelvin, On, Out, Pdb, Resume, Seconds, Seed, Tests, limit
from timewarp.settings import AdaptSettings, Device, ExploreSettings, MDSettings, Protocol, SampleSettings, Until


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
        pdb=pdb, out=out, steps=steps, seconds=limit(steps, seconds, 3600.0 if until else 60.0), chains=chains,
        checkpoint=checkpoint, width=width, adapt=adapt, particles=particles, anneal=anneal, warm_up=warm_up,
        until=until, verify=verify, temperature=temperature, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    done("sample", settings)


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
    done("adapt", settings)


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
        pdb=pdb, out=out, steps=steps, seconds=limit(steps, seconds), chains=chains, checkpoint=checkpoint,
        rise=rise, upgrade=upgrade, temperature=temperature, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    done("explore", settings)


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
        pdb=pdb, out=out, steps=steps, seconds=limit(steps, seconds), chains=chains, protocol=protocol,
        interval=interval, temperature=temperature, seed=seed, device=device, resume=resume,
    )  # fmt: skip
    done("md", settings)
