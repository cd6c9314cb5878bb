"""What the verdict on a run is made from: the frames in its directory, and what exploration knew before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from timewarp.analysis import Ensemble, slowest, verdict
from timewarp.analysis.basins import states
from timewarp.assemble.exploration import unvisited
from timewarp.mcmc.ess import bulk_ess, rhat
from timewarp.output import RunDirectory

POTENTIAL = "potential energy"  # an observable, beside the dihedrals and the slow coordinates
MOST = 400_000  # frames of all chains that are looked at, so that a run of any length can be judged


@dataclass(frozen=True)
class Judgement:
    """The verdict on the frames of a run.

    Attributes:
        values: entries of report.json: `ess`, `rhat`, `verdict`, `reasons`, `basins` and `chirality`.
        every: of so many frames one was looked at.
        words: the state of each frame that was looked at.
        potential: its energy in kJ/mol.
        steps: after which it was saved.
    """

    values: dict[str, Any]
    every: int
    words: Shaped[np.ndarray, "chains frames"]
    potential: Float[np.ndarray, "chains frames"]
    steps: Float[np.ndarray, " frames"]

    @property
    def converged(self) -> bool:
        return self.values["verdict"] == "converged"


def judge(
    directory: RunDirectory,
    chains: int,
    *,
    tested: bool,
    biased: bool,
    explored: Mapping[str, float] | None = None,
    seen: Collection[str] = (),
) -> Judgement:
    """Judge all frames so far.

    Args:
        directory: of the run, with frames of `chains` chains.
        tested: whether moves are tested, so that a chain that accepted none is a reason.
        biased: by design, so that no number of samples helps.
        explored: share of the exploring walks that ended in each state.
        seen: states that the chains were in before the first frame.
    """
    directory.flush()
    every = -(-directory.frames * chains // max(MOST, 1)) or 1
    paths = sorted(directory.path.glob("chain-*.dcd"))
    ensemble, log = Ensemble.load(directory.path / "topology.pdb", paths, every), directory.log(every)
    observables: dict[str, Any] = {}
    if (slow := slowest(ensemble)) is not None:
        along = slow(ensemble.features())
        observables |= {f"TIC{k}": along[..., k] for k in range(along.shape[-1])}
    potential, words = log["potential_kj_per_mol"].T.numpy(), states(ensemble)
    observables |= ensemble.observables() | {POTENTIAL: potential}
    rates = log["accepted"].mean(0).tolist() if tested and directory.frames else None
    found = [str(word) for word in set(words.ravel())]
    also = unvisited(explored or {}, set(found) | set(seen))
    if flipped := ensemble.flipped():
        also.append(f"in {flipped} frames an alpha carbon has another handedness than at the start")
    values = verdict(observables, ess=bulk_ess, rhat=rhat, acceptance=rates, exact=not biased, also=also)
    values["basins"] = {"explored": dict(explored or {}), "visited": sorted(found)}
    values["chirality"] = {"flipped_frames": flipped, "cis": ensemble.cis()}
    return Judgement(values, every, words, potential, log["step"][:, 0].numpy())
