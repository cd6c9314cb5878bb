"""`timewarp md`: Langevin dynamics of one peptide, from a file to a report."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

from timewarp.assemble import reporting
from timewarp.output import RunDirectory
from timewarp.settings import MDSettings, Progress, Report, Stop
from timewarp.state import State

if TYPE_CHECKING:
    from timewarp.md.reference import LangevinMD, Phase

SAVE_EVERY = 10.0  # s between snapshots


@dataclass
class Tally:
    """What a run has done so far: integration steps a chain, force evaluations of all chains, wall-clock time."""

    step: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    proposed: int = 0  # MD tests no moves
    accepted: int = 0


def md(settings: MDSettings, progress: Progress, stop: Stop) -> Report:
    """Langevin dynamics from the prepared structure, all chains in step; `steps` is rounded up to whole frames.

    Chains start at the prepared structure with thermal velocities of their own. Where a run was stopped does not show
    in its trajectory.

    Raises:
        InputError: if the peptide cannot be prepared.
        DirectoryRefused: if `out` cannot serve.
        Unstable: if the integration left the finite numbers; what was saved stays.
    """
    from timewarp.md.reference import LangevinMD
    from timewarp.md.system import prepare

    began = time.monotonic()
    progress(0.0, "reading the structure")
    prepared = prepare(settings.pdb)
    platform, notices = _platform(settings)
    kernel = LangevinMD.of(
        prepared, settings.protocol, settings.temperature, settings.interval, settings.chains, platform
    )
    identity = reporting.identity(settings, prepared, platform=platform)
    with RunDirectory.open(settings.out, identity, settings.resume) as directory:
        rng = torch.Generator().manual_seed(settings.seed)
        if directory.saved:
            rng = directory.saved.generator()
            ...
