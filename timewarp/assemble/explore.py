"""`timewarp explore`: the states of a peptide, fast and not exact; with `--upgrade`, exact chains from each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from timewarp.assemble.exploration import Exploration
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.reporting import amend
from timewarp.assemble.sample import chains_of
from timewarp.settings import ExploreSettings, Progress, Report, SampleSettings, Stop

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

EXACT = "exact"  # the directory of the exact chains, in that of the exploration
CHAINS, MOST = 10, 40  # exact chains: as many as states were found, between these


def explore(settings: ExploreSettings, progress: Progress, stop: Stop) -> Report:
    """Chains that accept what does not raise the energy too far: fast, and not exact.

    With `settings.upgrade` exact chains follow, which start in the states that were found and run as long again. Their
    populations and verdict are `upgraded` in the report; all else of them is in the directory `exact`.
    """
    report = chains_of(settings, progress, stop)
    if not settings.upgrade or stop():
        return report
    files = [settings.out / row["file"] for row in report["states"]]
    names = ("pdb", "steps", "seconds", "temperature", "checkpoint", "seed", "device")
    given = {name: getattr(settings, name) for name in names}
    asked = SampleSettings(**given, out=settings.out / EXACT, chains=min(max(CHAINS, len(files)), MOST))
    begun = (asked.out / "log.csv").exists()

    def found(peptide: Peptide, prepared: Prepared, rng: torch.Generator) -> Exploration:
        return Exploration.relaxed(peptide, prepared, _positions(files), rng)

    exact = chains_of(replace(asked, resume=begun), progress, stop, found)
    keys = ("verdict", "reasons", "basins", "states", "chains", "steps", "acceptance", "seconds", "ess", "rhat")
    message = f"exact chains from {len(files)} states: {exact['verdict']}; populations are in {asked.out}"
    return amend(settings.out, {"upgraded": {key: exact[key] for key in keys}, "message": message})


def _positions(files: Sequence[Path]) -> torch.Tensor:
    import mdtraj

    frames = [mdtraj.load_pdb(str(file), standard_names=False).xyz[0] for file in files]
    return torch.as_tensor(np.stack(frames))
