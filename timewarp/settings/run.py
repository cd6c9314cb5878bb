"""What all commands that leave a directory have in common, and how they are watched."""

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


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every command that leaves a directory has in common."""

    out: Path
    seed: int = 0
    device: Device = Device.AUTO
    seconds: float | None = None  # wall-clock; None for no limit
    resume: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "--seed", "0 or more, below 2^63", self.seed)
        require(self.seconds is None or 0 < self.seconds < math.inf, "--seconds", "more than 0", self.seconds)


@dataclass(frozen=True, kw_only=True)
class ChainSettings(RunSettings):
    """A command that runs chains of one peptide, until `steps` (a chain, in all) or `seconds` are over."""

    pdb: Path
    steps: int | None = None
    chains: int = 1
    temperature: float = 310.0  # K

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps is None or self.steps >= 1, "--steps", "1 or more", self.steps)
        require(self.steps or self.seconds, "a run", "a limit, --steps or --seconds", "neither")
        require(self.chains >= 1, "--chains", "1 or more", self.chains)
        require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)


def require(holds: object, what: str, expected: str, got: object) -> None:
    """Refuse an option for which something does not hold.

    Raises:
        SettingsError: if it does not.
    """
    if not holds:
        raise SettingsError(f"{what}: expected {expected}, got {got}")
