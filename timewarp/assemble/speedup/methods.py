"""The methods that are compared, each a function from a `Job` to a `Record`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timewarp import units
from timewarp.assemble.energy import energy_of
from timewarp.assemble.exploration import STEPS as START
from timewarp.assemble.explore import explore
from timewarp.assemble.peptide import Peptide, warm
from timewarp.assemble.reference import prepared as tempering_of
from timewarp.assemble.sample import sample
from timewarp.assemble.speedup.job import Job
from timewarp.assemble.speedup.record import Record
from timewarp.dcd import Trajectory
from timewarp.energy import Potential
from timewarp.mcmc.captured import STEPS, stepping
from timewarp.mcmc.dynamics import Langevin
from timewarp.settings import Device, ExploreSettings, SampleSettings
from timewarp.state import State

INTERVAL = 0.2  # ps between frames of dynamics
REPLICAS = {"cpu": 32, "cuda": 2048}  # of batched dynamics, of one process
LADDERS = {"cpu": 4, "cuda": 256}  # of batched parallel tempering, of one process
FOREVER = 1e9  # s


def md(job: Job) -> Record:
    """OpenMM's Langevin dynamics by the protocol that the method is named after."""
    from timewarp.md.baseline import frames
    from timewarp.md.system import prepare

    prepared = prepare(job.pdb)
    protocol = job.method.removeprefix("md-")
    return _alone(
        job, frames(prepared, protocol, job.platform, job.temperature, INTERVAL, 1 + job.seed), len(prepared.positions)
    )


def exchange(job: Job) -> Record:
    """OpenMM's own parallel tempering."""
    from timewarp.md.baseline import exchange as rounds
    from timewarp.md.system import prepare

    prepared = prepare(job.pdb)
    return _alone(job, rounds(prepared, job.platform, job.temperature, 1 + job.seed), len(prepared.positions))


def batched(job: Job) -> Record:
    """Langevin dynamics (2 fs, 1/ps, hydrogens of 3 amu) of many replicas on the batched potential.

    Replicas begin where a short torsion walk spreads them, as the chains of `sample` do.
    """
    peptide, energy, rng = _peptide(job, compiled=True)
    if not isinstance(energy, Potential):
        raise ValueError("expected a force field that the batched potential knows, found another")
    walk = peptide.walk()
    start = warm(walk, walk.begin(REPLICAS[job.device], rng), START, rng).positions.to(job.device)
    kernel = Langevin.of(peptide.molecule, energy, job.temperature, steps=round(INTERVAL / 0.002)).on(job.device)
    rng = torch.Generator(job.device).manual_seed(job.seed)
    phase = kernel.init(State.at(start, 3, rng))
    made = _side_by_side(job, _forever(kernel, phase, rng, 1))
    return _with(made, picoseconds=INTERVAL * made.energy.size)


def tempering(job: Job) -> Record:
    """Parallel tempering of torsion moves on the batched potential: the sampler that makes the training data."""
    peptide, _, _ = _peptide(job)
    rng = torch.Generator(job.device).manual_seed(job.seed)
    kernel, ladders = tempering_of(peptide.on(job.device), LADDERS[job.device], rng)
    made = _side_by_side(job, (state.cold for state in _forever(kernel, ladders, rng)))
    return _with(made, rungs=len(kernel.heats))


def sampled(job: Job) -> Record:
    """`timewarp sample`, with everything that it does before its first move."""
    settings = SampleSettings(
        pdb=Path(job.pdb), out=Path(job.record).with_suffix(""), seconds=FOREVER, chains=job.chains,
        checkpoint=job.checkpoint, temperature=job.temperature, seed=job.seed, device=Device(job.device),
    )  # fmt: skip
    return _command(job, settings, sample)


def explored(job: Job) -> Record:
    """`timewarp explore`; not exact, so that only the time to find states counts."""
    settings = ExploreSettings(
        pdb=Path(job.pdb), out=Path(job.record).with_suffix(""), seconds=FOREVER, checkpoint=job.checkpoint,
        temperature=job.temperature, seed=job.seed, device=Device(job.device),
    )  # fmt: skip
    return _with(_command(job, settings, explore), biased=True)


METHODS: dict[str, Callable[[Job], Record]] = {
    "md-paper": md,
    "md-2fs": md,
    "md-tuned": md,
    "exchange": exchange,
    "batched-md": batched,
    "tempering": tempering,
    "sample": sampled,
    "explore": explored,
}
MD = ("md-paper", "md-2fs", "md-tuned")
TOLD = {
    "md-paper": "OpenMM, 0.5 fs, unconstrained, 0.3/ps",
    "md-2fs": "OpenMM, 2 fs, bonds to hydrogen rigid, 1/ps",
    "md-tuned": "OpenMM, 4 fs, bonds to hydrogen rigid, hydrogens of 3 amu, 1/ps",
    "exchange": "OpenMM's ReplicaExchangeSampler on the dynamics of md-tuned, to 600 K",
    "batched-md": "Langevin dynamics of many replicas on the batched potential, 2 fs",
    "tempering": "parallel tempering of torsion moves on the batched potential",
    "sample": "timewarp sample; sample:NAME with that checkpoint",
    "explore": "timewarp explore: not exact, for its time to find the states alone",
}


def kind(method: str) -> str:
    """The method's name without its checkpoint: `sample` of `sample:2aa`."""
    return method.partition(":")[0]


def _forever(kernel: Any, state: Any, rng: torch.Generator, at_once: int = STEPS) -> Iterator[Any]:
    further, steps = stepping(kernel, state, rng, at_once), at_once if rng.device.type == "cuda" else 1
    while True:
        for state in further(state, steps):  # noqa: B020
            yield state


def _alone(job: Job, frames: Iterator[Any], atoms: int) -> Record:
    """One chain, until the time is over."""
    setup = end = job.elapsed()
    positions, energies, seconds, picoseconds = [], [], [], 0.0
    while not job.over(setup):
        frame = next(frames)
        end = job.elapsed()
        positions.append(frame.positions)
        energies.append(frame.potential)
        seconds.append(end)
        picoseconds += frame.picoseconds
    if not positions:
        return Record.empty(1, atoms, end, platform=job.platform)
    facts = {"platform": job.platform, "picoseconds": picoseconds}
    return Record(np.stack(positions)[None], np.array([energies]), np.array(seconds), setup, end, facts)


def _side_by_side(job: Job, states: Iterator[Any]) -> Record:
    """Chains of a kernel: their positions and U/kT, until the time is over; at least one frame."""
    setup = job.elapsed()
    positions, energies, seconds = [], [], []
    for state in states:
        positions.append(state.positions.float().cpu().numpy())
        energies.append(state.energy.double().cpu().numpy() * units.kT(job.temperature))
        seconds.append(job.elapsed())
        if job.over(setup):
            break
    return Record(np.stack(positions, 1), np.stack(energies, 1), np.array(seconds), setup, seconds[-1])


def _command(job: Job, settings: Any, call: Callable[..., Any]) -> Record:
    """A command, whose `stop` is asked once before the first move and then behind every frame."""
    asked: list[float] = []

    def stop() -> bool:
        asked.append(job.elapsed())
        return job.over(asked[0])

    report = call(settings, lambda *_: None, stop)
    paths = sorted(settings.out.glob("chain-*.dcd"))
    atoms, frames = report["atoms"], report["frames"]
    facts = {name: report[name] for name in ("acceptance", "checkpoint", "notices", "verdict")}
    facts["evaluations"] = report["energy_evaluations"]
    if not frames:
        return Record.empty(len(paths), atoms, asked[-1], **facts)
    positions = np.stack([Trajectory(path, atoms).read()[:frames] for path in paths])
    log = np.genfromtxt(settings.out / "log.csv", delimiter=",", names=True)
    energy = np.atleast_1d(log["potential_kj_per_mol"]).reshape(frames, len(paths)).T
    return Record(positions, energy, np.array(asked[1 : 1 + frames]), asked[0], asked[-1], facts)


def _peptide(job: Job, compiled: bool = False) -> tuple[Peptide, Any, torch.Generator]:
    from timewarp.md.system import prepare

    prepared = prepare(job.pdb)
    energy, molecule, _ = energy_of(prepared, job.temperature, device=job.device, compiled=compiled)
    peptide = Peptide.of(molecule, job.temperature, potential=energy, seed=job.seed)
    return peptide, energy, torch.Generator().manual_seed(job.seed)


def _with(record: Record, **facts: Any) -> Record:
    return replace(record, facts={**record.facts, **facts})
