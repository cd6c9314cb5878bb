"""The commands that run chains of one peptide, or learn it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from timewarp.settings.run import ChainSettings, Device, RunSettings, require


class Protocol(StrEnum):
    """How MD is integrated: `paper` is 0.5 fs, unconstrained, 0.3/ps; `tuned` is 4 fs, HBonds, hydrogens of 3 amu."""

    PAPER = "paper"
    TUNED = "tuned"


class Until(StrEnum):
    """What a run of chains goes on until, beside its limits: `converged` is the verdict."""

    CONVERGED = "converged"


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
        require(self.width >= 1, "--width", "1 or more", self.width)
        require(self.warm_up >= 0, "--warm-up", "0 or more", self.warm_up)
        require(not self.until or self.chains >= 4, "--until converged", "four chains or more to compare", self.chains)
        require(self.adapt is None or 0 < self.adapt < math.inf, "--adapt", "more than 0 minutes", self.adapt)
        require(self.anneal >= 0, "--anneal", "0 or more", self.anneal)
        require(self.particles >= 1, "--particles", "1 or more", self.particles)


@dataclass(frozen=True, kw_only=True)
class AdaptSettings(RunSettings):
    """`timewarp adapt`: a checkpoint that has learned one peptide; `out` gets adapted.json and .safetensors."""

    pdb: Path
    minutes: float = 5.0  # wall clock, the preparation not counted
    checkpoint: str = "2aa"
    temperature: float = 310.0  # K

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.minutes < math.inf, "--minutes", "more than 0", self.minutes)
        require(0 < self.temperature < math.inf, "--temperature", "a positive number of kelvin", self.temperature)
        require(self.device is not Device.CUDA, "--device", "cpu or auto for timewarp adapt", self.device)


@dataclass(frozen=True, kw_only=True)
class ExploreSettings(ChainSettings):
    """`timewarp explore`: chains that are not exact; steps are tested proposals a chain."""

    chains: int = 100
    checkpoint: str = "2aa"
    rise: float = 300.0  # kJ/mol, the most by which a move may raise the energy
    upgrade: bool = False  # exact chains follow, from the states that were found

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rise > 0, "--rise", "more than 0 kJ/mol", self.rise)


@dataclass(frozen=True, kw_only=True)
class MDSettings(ChainSettings):
    """`timewarp md`: Langevin MD with OpenMM; steps are integration steps."""

    protocol: Protocol = Protocol.TUNED
    interval: float = 1.0  # ps between saved frames

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.interval < math.inf, "--interval", "a positive number of ps", self.interval)
