"""Aggregate MD speed in one run: batched Langevin dynamics against OpenMM, each with one process a core."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from timewarp.energy import Potential
from timewarp.kernel import run
from timewarp.mcmc.dynamics import Langevin
from timewarp.state import State

DAY = 86_400e-3  # ns a day of one ps a second
STEP = 0.002  # ps, unconstrained
REPLICAS = 256  # of each process
INTERVAL = 0.2  # ps between frames of OpenMM
SETTLED = 0.2  # s, after which a step is timed


@dataclass(frozen=True)
class MDSpeed:
    """How fast both are, ns a day of all processes together.

    Attributes:
        peptide, atoms: what was run.
        processes, replicas: one process a core; replicas of each of ours.
        batched: ours, at `STEP`.
        openmm: OpenMM's `tuned` protocol, at `openmm_step`.
        share, openmm_share: of the processes' cores that each side had; less than 1 where others wanted them too.
    """

    peptide: str
    atoms: int
    device: str
    processes: int
    replicas: int
    step: float
    openmm_step: float
    batched: float
    openmm: float
    share: float = 1.0
    openmm_share: float = 1.0

    @property
    def ratio(self) -> float:
        return self.batched / self.openmm

    @property
    def ratio_by_processor_time(self) -> float:
        """What the ratio is where both sides have their cores to themselves."""
        return self.ratio * self.openmm_share / self.share

    def row(self) -> dict[str, Any]:
        """For a table."""
        return {
            "peptide": self.peptide, "atoms": self.atoms, "device": self.device, "processes": self.processes,
            "replicas": self.replicas, "step_fs": 1000 * self.step, "openmm_step_fs": 1000 * self.openmm_step,
            "ns_per_day": self.batched, "openmm_ns_per_day": self.openmm, "ratio": self.ratio,
            "share": self.share, "openmm_share": self.openmm_share,
            "ratio_by_processor_time": self.ratio_by_processor_time,
        }  # fmt: skip


def md_speed(
    sequence: str = "AA",
    seconds: float = 10.0,
    device: str = "cpu",
    processes: int | None = None,
    replicas: int = REPLICAS,
    compiled: bool = True,
    told: Callable[[str], None] = lambda _: None,
) -> MDSpeed:
    """Measure one peptide: OpenMM's `tuned` MD and ours in turn, for `seconds` each.

    Args:
        sequence: of the peptide; AA has 23 atoms.
        seconds: of each of the two, after what is done once.
        device: of ours; on a GPU it has one process.
        processes: of OpenMM, and of ours on a CPU; one a core if not given.
        replicas: of each of our processes.
        compiled: whether the potential is.
        told: gets a line for each.
    """
    cores = processes or len(os.sched_getaffinity(0))
    ours = cores if device == "cpu" else 1
    theirs = _together(_openmm, [(sequence, seconds, seed) for seed in range(cores)])
    told(f"{sequence}: OpenMM {sum(r for _, _, r, _ in theirs):.0f} ns/day in {cores} processes")
    batched = _together(_batched, [(sequence, seconds, seed, device, replicas, compiled) for seed in range(ours)])
    atoms, openmm_step, *_ = theirs[0]
    sides = (batched, theirs)
    rates = [sum(rate for _, _, rate, _ in side) for side in sides]
    shares = [sum(share for *_, share in side) / len(side) for side in sides]
    speed = MDSpeed(sequence, atoms, device, cores, replicas, STEP, openmm_step, *rates, *shares)
    told(f"{sequence}: batched {speed.batched:.0f} ns/day in {ours} processes, {speed.ratio:.1f} times as much")
    return speed


def _together(work: Callable, asked: list[tuple]) -> list[tuple[int, float, float, float]]:
    """What `work` gives for each, all at once in a process of its own; the clock starts when all are ready."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(asked), context, _begin, (context.Barrier(len(asked)),)) as pool:
        return [one.result() for one in [pool.submit(work, *arguments) for arguments in asked]]


_ready: Barrier


def _begin(barrier: Barrier) -> None:
    global _ready
    _ready = barrier
    os.environ["OPENMM_CPU_THREADS"] = "1"
    torch.set_num_threads(1)


def _openmm(sequence: str, seconds: float, seed: int) -> tuple[int, float, float, float]:
    from timewarp.md.baseline import INTEGRATIONS, fastest_platform, frames
    from timewarp.md.system import prepare_sequence

    prepared = prepare_sequence(sequence)
    made = frames(prepared, "tuned", fastest_platform(prepared), 310.0, INTERVAL, 1 + seed)
    rate, share = _counted(lambda: next(made), seconds)
    return len(prepared.positions), INTEGRATIONS["tuned"].step, rate * INTERVAL * DAY, share


def _batched(
    sequence: str, seconds: float, seed: int, device: str, replicas: int, compiled: bool
) -> tuple[int, float, float, float]:
    from timewarp.assemble.data import loader

    molecule = loader(sequence)()
    potential = Potential(molecule, device=device, compiled=compiled)
    rng = torch.Generator(device).manual_seed(seed)
    x = molecule.reference.float().to(device).repeat(replicas, 1, 1)
    kernel = Langevin.of(molecule, potential, timestep=STEP, steps=20)
    rate, share = _rate(kernel, State.at(x, 3, rng), seconds, rng)
    return molecule.atoms, STEP, rate * kernel.steps * replicas * STEP * DAY, share


def _rate(kernel, start: State, seconds: float, rng: torch.Generator) -> tuple[float, float]:
    """Steps of the kernel a second, once the first ones are over, and the share of a core that they had."""
    states = run(kernel, kernel.init(start), 2**62, rng)

    def work() -> None:
        state, _ = next(states)
        if state.positions.is_cuda:
            torch.cuda.synchronize()

    return _counted(work, seconds)


def _counted(work: Callable[[], object], seconds: float) -> tuple[float, float]:
    """How often a second something is done, once it has been done for a while, in all processes from the same time.

    Also the processor's time over the clock's.
    """
    began = time.perf_counter()
    while time.perf_counter() - began < SETTLED:
        work()
    _ready.wait()
    began, used, count = time.perf_counter(), time.process_time(), 0
    while (spent := time.perf_counter() - began) < seconds or not count:
        work()
        count += 1
    return count / spent, (time.process_time() - used) / spent
