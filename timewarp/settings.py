"""What a user asks for: one frozen dataclass a command, whose fields are the options of the command line.

They hold plain values alone, so that they cost nothing to import, and refuse what cannot be meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

Progress = Callable[[float, str], None]  # the share that is done, 0 to 1, and a few words on how it goes
Stop = Callable[[], bool]  # whether to finish the current step, save, report and return
Report = Mapping[str, Any]  # what report.json holds
Work = Callable[[Any, Progress, Stop], Report]  # what a command hands its settings to


class SettingsError(ValueError):
    """An option that cannot be meant. The message is one line: what was expected, what was found."""


class Device(StrEnum):
    """Where tensors live; `auto` is CUDA where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def resolve(self) -> str:
        """The name that torch knows.

        Raises:
            SettingsError: if CUDA is asked for and there is none.
        """
        import torch

        if self is Device.CUDA and not torch.cuda.is_available():
            raise SettingsError("expected a CUDA device for --device cuda, found none; use --device cpu or auto")
        return "cuda" if self is not Device.CPU and torch.cuda.is_available() else "cpu"


class Protocol(StrEnum):
    """How MD is integrated: `paper` is 0.5 fs, unconstrained, 0.3/ps; `tuned` is 4 fs, HBonds, hydrogens of 3 amu."""

    PAPER = "paper"
    TUNED = "tuned"


class Until(StrEnum):
    """What a run of chains goes on until, beside its limits: `converged` is the verdict."""

    CONVERGED = "converged"


class Chart(StrEnum):
    """The coordinates that a flow works in: `internal` is ours, `cartesian` the published one."""

    INTERNAL = "internal"
    CARTESIAN = "cartesian"


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every command that leaves a directory has in common."""

    out: Path
    seed: int = 0
    device: Device = Device.AUTO
    seconds: float | None = None  # wall-clock; None for no limit
    resume: bool = False

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "--seed", "0 or more, below 2^63", self.seed)
        _require(self.seconds is None or 0 < self.seconds < math.inf, "--seconds", "more than 0", self.seconds)


@dataclass(frozen=True, kw_only=True)
class ChainSettings(RunSettings):
    """A command that runs chains of one peptide, until `steps` (a chain, in all) or `seconds` are over."""

    pdb: Path
    steps: int | None = None
    chains: int = 1
    temperature: float = 310.0  # K

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.steps is None or self.steps >= 1, "--steps", "1 or more", self.steps)
        _require(self.steps or self.seconds, "a run", "a limit, --steps or --seconds", "neither")
        _require(self.chains >= 1, "--chains", "1 or more", self.chains)
        _require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


@dataclass(frozen=True, kw_only=True)
class SampleSettings(ChainSettings):
    """`timewarp sample`: exact chains; steps are tested proposals a chain."""

    chains: int = 10
    checkpoint: str = "2aa"
    width: int = 100  # proposals at once: a matter of speed alone, see `timewarp.assemble.warming`
    adapt: float | None = None  # minutes of adaptation before the first frame; None for none
    # draws of the stiff coordinates for each proposal: four lift the acceptance by 7 to 10 %, at about the same ESS/s
    particles: int = 4
    anneal: int = 0  # steps: two take the acceptance from 58 to 62 %, for half again the time of a proposal
    warm_up: int = 100  # tests of each chain before the first frame
    until: Until | None = None  # also the end of a run, before its limit
    verify: bool = False  # OpenMM has the last word on every move

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.width >= 1, "--width", "1 or more", self.width)
        _require(self.warm_up >= 0, "--warm-up", "0 or more", self.warm_up)
        _require(not self.until or self.chains >= 4, "--until converged", "four chains or more to compare", self.chains)
        _require(self.adapt is None or 0 < self.adapt < math.inf, "--adapt", "more than 0 minutes", self.adapt)
        _require(self.anneal >= 0, "--anneal", "0 or more", self.anneal)
        _require(self.particles >= 1, "--particles", "1 or more", self.particles)


@dataclass(frozen=True, kw_only=True)
class AdaptSettings(RunSettings):
    """`timewarp adapt`: a checkpoint that has learned one peptide; `out` gets adapted.json and .safetensors."""

    pdb: Path
    minutes: float = 5.0  # wall clock, the preparation not counted
    checkpoint: str = "2aa"
    temperature: float = 310.0  # K

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.minutes < math.inf, "--minutes", "more than 0", self.minutes)
        _require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)
        _require(self.device is not Device.CUDA, "--device", "cpu or auto for timewarp adapt", self.device)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(RunSettings):
    """`timewarp evaluate`: a checkpoint on peptides built from their sequences, `seconds` of sampling each."""

    sequences: tuple[str, ...]
    chains: int = 10
    checkpoint: str = "2aa"
    temperature: float = 310.0  # K
    budget: int = 10_000  # energy evaluations at which distances are measured; 0 for no distances
    reference_ns: float | None = None  # of OpenMM MD as the reference; None for parallel tempering
    ot_frames: int = 10_000  # of each side of a distance
    seeds: int = 1  # seed, seed + 1, ...
    adapt: float | None = None  # minutes of adaptation to each peptide; None for none
    proposals: bool = True  # whether distances of `budget` draws are measured too

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.adapt is None or 0 < self.adapt < math.inf, "--adapt", "a positive number of minutes", self.adapt)
        _require(self.sequences, "SEQUENCE...", "at least one", "none")
        _require(self.budget == 0 or self.budget >= 10, "--budget", "10 or more, or 0 for no distances", self.budget)
        _require(
            self.reference_ns is None or 0 < self.reference_ns < math.inf,
            "--reference-ns",
            "a positive number",
            self.reference_ns,
        )
        _require(self.ot_frames >= 50, "--ot-frames", "50 or more", self.ot_frames)
        _require(self.seeds >= 1, "--seeds", "1 or more", self.seeds)
        _require(self.chains >= 1, "--chains", "1 or more", self.chains)
        _require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


@dataclass(frozen=True, kw_only=True)
class ExploreSettings(ChainSettings):
    """`timewarp explore`: chains that are not exact; steps are tested proposals a chain."""

    chains: int = 100
    checkpoint: str = "2aa"
    rise: float = 300.0  # kJ/mol, the most by which a move may raise the energy
    upgrade: bool = False  # exact chains follow, from the states that were found

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.rise > 0, "--rise", "more than 0 kJ/mol", self.rise)


@dataclass(frozen=True, kw_only=True)
class MDSettings(ChainSettings):
    """`timewarp md`: Langevin MD with OpenMM; steps are integration steps."""

    protocol: Protocol = Protocol.TUNED
    interval: float = 1.0  # ps between saved frames

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.interval < math.inf, "--interval", "a positive number of ps", self.interval)


@dataclass(frozen=True, kw_only=True)
class DataSettings(RunSettings):
    """`timewarp data`: training sets of many peptides, frames of `walkers` chains after `warm_up` moves of each.

    With `export`, `out` gets the molecules alone; with `from_export` they are taken from such a directory.
    """

    # each a sequence, a file with one a line, all-dipeptides, or a word such as random-3-8x200
    sequences: tuple[str, ...] = ()
    exclude: tuple[Path, ...] = ()  # files of sequences that are never made
    walkers: int = 256
    frames: int = 8  # kept of each walker
    warm_up: int = 160  # torsion moves of each walker before the first frame, half of them hot
    temperature: float = 310.0  # K
    tempering: bool = False  # each walker is the coldest rung of a ladder, in place of a hot start
    export: bool = False
    from_export: Path | None = None
    redraw: Path | None = None  # shards whose frames are drawn anew by exact chains of `checkpoint`
    checkpoint: str = "2aa"
    flow: str | None = None  # a checkpoint; chains start at its draws, and mix its proposals with torsion moves

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(not (self.flow and self.tempering), "--flow", "it without --tempering", "both")
        if self.redraw is not None:
            _require(not (self.export or self.from_export), "--redraw", "it without --export and --from-export", "both")
        elif self.from_export is None:
            _require(self.sequences, "SEQUENCE...", "at least one", "none")
        else:
            _require(not self.export, "--export", "one of --export and --from-export", "both")
            _require(
                not self.exclude, "--exclude", "it together with --export, which leaves these out", "--from-export"
            )
        _require(self.walkers >= 1, "--walkers", "1 or more", self.walkers)
        _require(self.frames >= 1, "--frames", "1 or more", self.frames)
        _require(self.warm_up >= 0, "--warm-up", "0 or more", self.warm_up)
        _require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunSettings):
    """`timewarp train`: a checkpoint from data; `out` gets NAME.json and NAME.safetensors."""

    data: Path
    name: str = "flow"
    chart: Chart = Chart.INTERNAL
    velocities: int | None = None  # channels; None for 0 in the internal chart, 3 in the Cartesian one (published)
    steps: int | None = None
    batch: int = 256
    molecules: int = 16  # in a batch, where the data have as many
    learning_rate: float = 5e-4
    horizon: int = 0  # steps over which the learning rate falls; 0 keeps it
    likelihood: float = 1.0  # weights of the terms
    spread: float = 1.0
    acceptance: float = 0.0
    entropy: float = 0.0
    own_from: int = 0  # step from which these terms count
    validation: tuple[str, ...] = ()  # peptides of the data to hold out; none for a tenth of them
    start: str | None = None  # a checkpoint whose weights a new run begins with

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.steps is None or self.steps >= 1, "--steps", "1 or more", self.steps)
        _require(self.steps or self.seconds, "training", "a limit, --steps or --seconds", "neither")
        _require(self.velocities is None or 0 <= self.velocities <= 3, "--velocities", "0 to 3", self.velocities)
        if self.chart is Chart.CARTESIAN:
            _require(self.velocities != 0, "--velocities", "1 to 3 for the Cartesian chart", self.velocities)
        _require(self.batch >= 1, "--batch", "1 or more", self.batch)
        _require(self.molecules >= 1, "--molecules", "1 or more", self.molecules)
        _require(0 < self.learning_rate < math.inf, "--learning-rate", "a positive number", self.learning_rate)
        _require(self.horizon >= 0, "--horizon", "0 or more", self.horizon)
        _require(0 <= self.likelihood < math.inf, "--likelihood", "0 or more", self.likelihood)
        _require(0 <= self.spread < math.inf, "--spread", "0 or more", self.spread)
        _require(0 <= self.acceptance < math.inf, "--acceptance", "0 or more", self.acceptance)
        _require(0 <= self.entropy < math.inf, "--entropy", "0 or more", self.entropy)
        _require(self.own_from >= 0, "--own-from", "0 or more", self.own_from)


@dataclass(frozen=True, kw_only=True)
class BenchSettings(RunSettings):
    """`timewarp bench --energy` and `--md`: the batched potential, or dynamics on it, against OpenMM.

    Peptides are built from their sequences.
    """

    sequences: tuple[str, ...] = ("AA", "AAAA", "KLLK", "KLLFFAEK")  # 23, 43, 85 and 150 atoms
    energy: bool = False
    md: bool = False
    batch: int = 1024  # configurations a call; replicas of a process
    threads: int | None = None  # of both sides; None for all cores
    rounds: int = 5  # turns of each side
    slice: float = 0.3  # s, a turn at least

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.energy != self.md, "timewarp bench", "one of --energy and --md", "both" if self.md else "neither")
        _require(self.sequences, "SEQUENCE...", "at least one", "none")
        _require(self.batch >= 1, "--batch", "1 or more", self.batch)
        _require(self.threads is None or self.threads >= 1, "--threads", "1 or more", self.threads)
        _require(self.rounds >= 1, "--rounds", "1 or more", self.rounds)
        _require(0 < self.slice < math.inf, "--slice", "a positive number of seconds", self.slice)


@dataclass(frozen=True, kw_only=True)
class RaceSettings(RunSettings):
    """`timewarp bench`: effective samples a second of every method on peptides; `seconds` of sampling each."""

    peptides: tuple[str, ...]  # files, or sequences
    seconds: float = 60.0
    methods: tuple[str, ...] = ()  # none for all
    checkpoints: tuple[str, ...] = ("2aa",)
    chains: int = 10  # of `timewarp sample`, in each process
    cores: int | None = None  # None for all
    reference_frames: int = 10_000  # of each half of the reference; few are quick, and coarse
    reference_seconds: float = 1800.0  # after which a reference is what it is, whether its halves agree or not
    dynamics_seconds: float = 60.0  # of each MD protocol's dynamics from the reference; 0 for none
    temperature: float = 310.0  # K
    workers: int | None = None  # processes of a dask cluster on this machine, one block of chains at a time each
    dask: str | None = None  # the address of a scheduler, in place of these

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.reference_seconds < math.inf, "--reference-seconds", "more than 0", self.reference_seconds)
        _require(0 <= self.dynamics_seconds < math.inf, "--dynamics-seconds", "0 or more", self.dynamics_seconds)
        _require(self.workers is None or self.workers >= 1, "--workers", "1 or more", self.workers)
        _require(not (self.workers and self.dask), "timewarp bench", "one of --workers and --dask", "both")
        _require(self.peptides, "timewarp bench", "peptides, or --energy, or --compare with files", "nothing")
        _require(self.checkpoints, "--checkpoint", "at least one", "none")
        _require(self.chains >= 1, "--chains", "1 or more", self.chains)
        _require(self.cores is None or self.cores >= 1, "--threads", "1 or more", self.cores)
        _require(self.reference_frames >= 50, "--reference-frames", "50 or more", self.reference_frames)
        _require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(RunSettings):
    """`timewarp bench --compare`: a page that shows several `bench.json` side by side."""

    files: tuple[Path, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.files, "--compare", "one bench.json or more", "none")


def _require(holds: object, what: str, expected: str, got: object) -> None:
    if not holds:
        raise SettingsError(f"{what}: expected {expected}, got {got}")
