"""The warm-up of exact chains: it leaves no frame, and finds how often each kernel is picked from then on.

Steps cost what they take on a CPU, in units of one configuration's energy in a wide batch: evaluations, and for each
call as much again as `LATENCY` of them, measured on peptides of 23 to 70 atoms. A clock would decide better on another
machine, and make the run another one each time.

The kernels take turns in blocks, since each change of kernel costs the flow a new path for every present state, which
takes as long as three steps; the order is fixed, and so leaves invariant what each kernel does.

Regrowth and single torsions have the more of the flow's steps, the less of its proposals is taken up: what they are
there for, states that a chain leaves once in thousands of whole proposals, a pilot does not see.

The width is not adapted. Proposals that wait are each tested exactly once, whatever was accepted before them, so that
the width changes no acceptance and no autocorrelation of a memoryless flow; only the time of a proposal depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from timewarp.assemble.exploration import words_of
from timewarp.assemble.kernels import parted
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.tally import FLOW, REGROWTH, TURNING, Tally
from timewarp.mcmc import Mixture
from timewarp.mcmc.pilot import Pilot
from timewarp.settings import Progress, SampleSettings

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

LATENCY = 15
GIVEN = (REGROWTH, TURNING)  # whose shares follow from the acceptance
KEPT = 500  # steps that are kept before their states are read
# of the kernels, so that each is seen
SHARES = {2: (0.7, 0.3), 3: (0.6, 0.25, 0.15), 5: (0.38, 0.11, 0.11, 0.25, 0.15)}
TURNS = 3  # blocks of each kernel
LOCAL_FROM = 0.5  # share of the flow's steps below which the chains rely on local moves
FEW = 0.01  # acceptance of the flow below which they do, whatever its steps are worth


@dataclass(frozen=True)
class Warming:
    """A warm-up; calling it warms.

    Attributes:
        kernel: the mixture of the run.
        names: of its kernels.
        peptide: whose free torsions and energy are what is to move.
        prepared: the same from its file.
        steps: tests of each chain.
        width: proposals of the flow at once, for a chain.
    """

    kernel: Mixture
    names: Sequence[str]
    peptide: Peptide
    prepared: Prepared
    steps: int
    width: int

    def __call__(self, state: Any, rng: torch.Generator, tally: Tally, progress: Progress) -> Any:
        """The chains after it; their states, evaluations and the weights that were found are noted in `tally`."""
        judged = [k for k, name in enumerate(self.names) if name not in GIVEN]
        pilot, kept, seen = Pilot(len(judged)), [state.state.positions], set[str]()
        before = self._observed(state)
        for step, number in enumerate(turns(self.steps, SHARES[len(self.names)]), 1):
            state, info = self.kernel.step_of(number, state, rng)
            tally.evaluations += int(info["evaluations"])
            after = self._observed(state)
            if info["kernel"] in judged:
                pilot.add(judged.index(info["kernel"]), before, after, self._cost(info))
            before = after
            kept.append(state.state.positions)
            if len(kept) > KEPT:
                seen |= set(words_of(self.prepared, torch.stack(kept)))
                kept.clear()
            progress(0.0, f"warm-up, {step} of {self.steps}")
        if kept:
            seen |= set(words_of(self.prepared, torch.stack(kept)))
        tally.seen = sorted(seen)
        weights = pilot.weights() if self.steps else None
        if weights:
            taken_up = float(state.accepted[0]) / max(1, int(state.tested[0]))
            tally.weights = list(weights if len(judged) == len(self.names) else parted(weights, taken_up))
            tally.rates = {self.names[k]: rate for k, rate in zip(judged, pilot.rates, strict=True)}
        tally.warm_up = {
            name: [int(tested), int(accepted)]
            for name, tested, accepted in zip(self.names, state.tested, state.accepted, strict=True)
        }
        return state

    def _observed(self, state: Any) -> torch.Tensor:
        torsions = self.peptide.chart.forward(state.state.positions)[0]
        return torch.cat([torsions.sin(), torsions.cos(), state.energy[:, None].to(torsions)], 1)

    def _cost(self, info: dict[str, Any]) -> float:
        chains = len(info["accepted"])
        if self.names[info["kernel"]] == FLOW:
            return info["evaluations"]  # in batches that hide the latency
        return info["evaluations"] * (1 + LATENCY / chains)


def turns(steps: int, shares: Sequence[float]) -> Iterator[int]:
    """Which kernel makes each of `steps` steps: `TURNS` blocks of each, from the last kernel to the first."""
    counts = [round(steps * share) for share in shares[1:]]
    counts.insert(0, steps - sum(counts))
    for turn in range(TURNS):
        for number in reversed(range(len(counts))):
            done, due = (counts[number] * k // TURNS for k in (turn, turn + 1))
            yield from [number] * (due - done)


def relies_on_local_moves(tally: Tally, names: Sequence[str]) -> list[str]:
    """A notice where the flow does so little that local moves do the work."""
    if FLOW not in names or not tally.weights:
        return []
    tested, accepted = tally.warm_up.get(FLOW, (0, 0))
    flows = sum(weight for name, weight in zip(names, tally.weights, strict=True) if name in (FLOW, *GIVEN))
    if flows >= LOCAL_FROM and accepted > FEW * tested:
        return []
    advice = "; --adapt 5 lets it learn the peptide first" if REGROWTH in names else ""  # which another kind cannot
    return [
        f"the flow is of little use for this peptide: {accepted} of its {tested} proposals were accepted in the "
        f"warm-up, so the chains rely on local moves{advice}"
    ]


def warm_up_of(settings: Any, kernel: Any, names: Sequence[str], tally: Tally) -> dict[str, Any] | None:
    """What the report says of the warm-up and of the weights that it froze."""
    if not isinstance(settings, SampleSettings):
        return None
    return {
        "steps": settings.warm_up,
        "width": settings.width,  # as asked for, see above
        "by_kernel": tally.warm_up,
        "weights": dict(zip(names, kernel.weights, strict=True)),
        "found": bool(tally.weights),
        "rates": tally.rates,
    }
