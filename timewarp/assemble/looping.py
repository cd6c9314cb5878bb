"""The loop of `timewarp sample` and `timewarp explore`: steps, frames, saves, and when it is over."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from timewarp import units
from timewarp.assemble.judging import judge
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.tally import Tally
from timewarp.flow.pose import posed
from timewarp.kernel import Kernel, Proposal, run
from timewarp.output import RunDirectory
from timewarp.settings import ExploreSettings, Progress, SampleSettings, Stop

SAVE_EVERY = 10.0  # s between snapshots
FIRST, FURTHER = 100, 1.25  # frames a chain at the first look at convergence; and at each one in units of the last
LOOKS = 2  # at which a run is found to have converged, one after the other, before it ends


@dataclass
class Loop:
    """A run from where its chains are.

    Attributes:
        settings: of the run; its limit is that of this loop.
        directory: of the run.
        kernel: of the chains.
        names: of the kernels that it mixes.
        peptide: of the run.
        proposal: of the flow.
        pose: in which frames are written.
        progress: told the share that is done, and a few words.
        stop: whether to finish the step, save and return.
        began: when this process did.
        before: seconds that earlier processes spent.
        first: when the chains began to move: the limit does not count the preparation.
    """

    settings: SampleSettings | ExploreSettings
    directory: RunDirectory
    kernel: Kernel
    names: tuple[str, ...]
    peptide: Peptide
    proposal: Proposal
    pose: Tensor
    progress: Progress
    stop: Stop
    began: float
    before: float
    first: float = 0.0

    def run(self, state: Any, tally: Tally, rng: torch.Generator) -> None:
        """Sample until the limit, or until asked to stop; every frame and the end are saved."""
        saved = self.first = time.monotonic()
        steps = self.settings.steps
        left = steps - tally.step if steps else 2**62
        self._save(state, tally, rng)
        if left > 0 and not self._over():
            for state, info in run(self.kernel, state, left, rng):  # noqa: B020
                tally.step += 1
                tally.count(self.names[info.get("kernel", 0)], info)
                frame = posed(state.state.positions, self.pose.expand_as(state.state.positions), self.peptide.frame)
                potential = state.energy * units.kT(self.settings.temperature)
                self.directory.append(tally.step, frame, potential, info["accepted"])
                if time.monotonic() - saved > SAVE_EVERY:
                    self._save(state, tally, rng)
                    saved = time.monotonic()
                if tally.step % 20 == 0:
                    self._tell(tally)
                if self._converged(tally) or self._over():
                    break
        self._save(state, tally, rng)

    def _converged(self, tally: Tally) -> bool:
        """Whether the run may end because its chains have converged; the looks are at steps that no clock decides."""
        if isinstance(self.settings, ExploreSettings) or not self.settings.until or not is_look(tally.step):
            return False
        found = judge(
            self.directory, self.settings.chains, tested=True, biased=False, explored=tally.explored, seen=tally.seen
        )
        tally.held = tally.held + 1 if found.converged else 0
        return tally.held >= LOOKS

    def _over(self) -> bool:
        limit = self.settings.seconds
        return self.stop() or (limit is not None and time.monotonic() - self.first > limit)

    def _save(self, state, tally: Tally, rng: torch.Generator) -> None:
        tally.seconds = self.before + time.monotonic() - self.began
        tensors = {f"kernel.{k}": v for k, v in state.tensors().items()}
        tensors |= {f"chart.{k}": v for k, v in self.peptide.chart.arrays().items()}
        self.directory.save(tensors, rng, {"tally": asdict(tally)})

    def _tell(self, tally: Tally) -> None:
        shares = [tally.step / self.settings.steps if self.settings.steps else 0.0]
        if self.settings.seconds:
            shares.append((time.monotonic() - self.first) / self.settings.seconds)
        rate = tally.accepted / max(1, tally.proposed)
        self.progress(min(1.0, max(shares)), f"{tally.step} steps, acceptance {rate:.1%}")


def is_look(step: int) -> bool:
    """Whether convergence is judged after so many steps; ever more rarely, so that it never costs much of the time."""
    look = FIRST
    while look < step:
        look = math.ceil(FURTHER * look)
    return look == step
