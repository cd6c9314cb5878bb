"""The commands that make a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from timewarp.settings.run import RunSettings, require


class Chart(StrEnum):
    """The coordinates that a flow works in: `internal` is ours, `cartesian` the published one."""

    INTERNAL = "internal"
    CARTESIAN = "cartesian"


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
        require(not (self.flow and self.tempering), "--flow", "it without --tempering", "both")
        if self.redraw is not None:
            require(not (self.export or self.from_export), "--redraw", "it without --export and --from-export", "both")
        elif self.from_export is None:
            require(self.sequences, "SEQUENCE...", "at least one", "none")
        else:
            require(not self.export, "--export", "one of --export and --from-export", "both")
            require(not self.exclude, "--exclude", "it together with --export, which leaves these out", "--from-export")
        require(self.walkers >= 1, "--walkers", "1 or more", self.walkers)
        require(self.frames >= 1, "--frames", "1 or more", self.frames)
        require(self.warm_up >= 0, "--warm-up", "0 or more", self.warm_up)
        require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


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
        require(self.steps is None or self.steps >= 1, "--steps", "1 or more", self.steps)
        require(self.steps or self.seconds, "training", "a limit, --steps or --seconds", "neither")
        require(self.velocities is None or 0 <= self.velocities <= 3, "--velocities", "0 to 3", self.velocities)
        if self.chart is Chart.CARTESIAN:
            require(self.velocities != 0, "--velocities", "1 to 3 for the Cartesian chart", self.velocities)
        require(self.batch >= 1, "--batch", "1 or more", self.batch)
        require(self.molecules >= 1, "--molecules", "1 or more", self.molecules)
        require(0 < self.learning_rate < math.inf, "--learning-rate", "a positive number", self.learning_rate)
        require(self.horizon >= 0, "--horizon", "0 or more", self.horizon)
        require(0 <= self.likelihood < math.inf, "--likelihood", "0 or more", self.likelihood)
        require(0 <= self.spread < math.inf, "--spread", "0 or more", self.spread)
        require(0 <= self.acceptance < math.inf, "--acceptance", "0 or more", self.acceptance)
        require(0 <= self.entropy < math.inf, "--entropy", "0 or more", self.entropy)
        require(self.own_from >= 0, "--own-from", "0 or more", self.own_from)
