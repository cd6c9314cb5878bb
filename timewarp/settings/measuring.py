"""The commands that measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from timewarp.settings.run import RunSettings, require


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(RunSettings):
    """`timewarp evaluate`: a checkpoint on peptides built from their sequences, `seconds` of sampling each."""

    sequences: tuple[str, ...]
    chains: int = 10
    checkpoint: str = "2aa"
    temperature: float = 310.0  # K
    budget: int = 10_000  # energy evaluations at which distances are measured; 0 for no distances
    reference_ns: float | None = None  # of OpenMM MD as the reference; None for parallel tempering
    reference_seconds: float = 1800.0  # after which tempering is what it is, whether its halves agree or not
    ot_frames: int = 10_000  # of each side of a distance
    seeds: int = 1  # seed, seed + 1, ...
    adapt: float | None = None  # minutes of adaptation to each peptide; None for none
    proposals: bool = True  # whether distances of `budget` draws are measured too

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.adapt is None or 0 < self.adapt < math.inf, "--adapt", "a positive number of minutes", self.adapt)
        require(self.sequences, "SEQUENCE...", "at least one", "none")
        require(self.budget == 0 or self.budget >= 10, "--budget", "10 or more, or 0 for no distances", self.budget)
        require(
            self.reference_ns is None or 0 < self.reference_ns < math.inf,
            "--reference-ns",
            "a positive number",
            self.reference_ns,
        )
        require(0 < self.reference_seconds < math.inf, "--reference-seconds", "more than 0", self.reference_seconds)
        require(self.ot_frames >= 50, "--ot-frames", "50 or more", self.ot_frames)
        require(self.seeds >= 1, "--seeds", "1 or more", self.seeds)
        require(self.chains >= 1, "--chains", "1 or more", self.chains)
        require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


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
        require(self.energy != self.md, "timewarp bench", "one of --energy and --md", "both" if self.md else "neither")
        require(self.sequences, "SEQUENCE...", "at least one", "none")
        require(self.batch >= 1, "--batch", "1 or more", self.batch)
        require(self.threads is None or self.threads >= 1, "--threads", "1 or more", self.threads)
        require(self.rounds >= 1, "--rounds", "1 or more", self.rounds)
        require(0 < self.slice < math.inf, "--slice", "a positive number of seconds", self.slice)


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
        require(0 < self.reference_seconds < math.inf, "--reference-seconds", "more than 0", self.reference_seconds)
        require(0 <= self.dynamics_seconds < math.inf, "--dynamics-seconds", "0 or more", self.dynamics_seconds)
        require(self.workers is None or self.workers >= 1, "--workers", "1 or more", self.workers)
        require(not (self.workers and self.dask), "timewarp bench", "one of --workers and --dask", "both")
        require(self.peptides, "timewarp bench", "peptides, or --energy, or --compare with files", "nothing")
        require(self.checkpoints, "--checkpoint", "at least one", "none")
        require(self.chains >= 1, "--chains", "1 or more", self.chains)
        require(self.cores is None or self.cores >= 1, "--threads", "1 or more", self.cores)
        require(self.reference_frames >= 50, "--reference-frames", "50 or more", self.reference_frames)
        require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(RunSettings):
    """`timewarp bench --compare`: a page that shows several `bench.json` side by side."""

    files: tuple[Path, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.files, "--compare", "one bench.json or more", "none")
