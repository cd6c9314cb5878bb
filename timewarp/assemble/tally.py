"""What a run of chains has done so far; it is kept in the snapshot, so that it goes on where the run does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# names of kernels
FLOW, REGROWTH, TURNING, TORSIONS, LOCAL = "flow", "regrowth", "turning", "torsions", "hamiltonian"


@dataclass
class Tally:
    """What a run has done so far; kept in the snapshot."""

    step: int = 0
    proposed: int = 0
    accepted: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    setup: float = 0.0  # seconds before the first frame
    by_kernel: dict[str, list[int]] = field(default_factory=dict)
    explored: dict[str, float] = field(default_factory=dict)  # states that walks ended in before
    seen: list[str] = field(default_factory=list)  # states of the chains before the first frame
    weights: list[float] = field(default_factory=list)  # of the mixture, found in the warm-up; none for those of a rule
    rates: dict[str, float] = field(default_factory=dict)  # what each kernel did there for its cost, see `Pilot`
    warm_up: dict[str, list[int]] = field(default_factory=dict)  # tested and accepted there, by kernel
    judged: int = 0  # second tests, by the last word on the energy
    refused: int = 0  # that failed
    difference: float = 0.0  # U/kT, the largest between the two energies there
    fused: bool | None = False  # whether the energy is compiled, None if undecided; see `assemble.fusing`
    width: int = 0  # proposals that are drawn at once for a chain; 0 for as many as were asked for
    held: int = 0  # looks in a row at which the chains had converged

    def count(self, name: str, info: dict[str, Any]) -> None:
        tested = int(info.get("made", info["tested"]).sum())
        accepted = int((info.get("moved", info["accepted"]) * info["accepted"]).sum())  # none of what was undone
        self.evaluations += int(info["evaluations"])
        if "tested_again" in info:
            again = info["tested_again"]
            self.judged += int(again.sum())
            self.refused += int((again & ~info["accepted"]).sum())
            found = info["difference"][again & info["difference"].isfinite()]
            self.difference = max(self.difference, *found.abs().tolist(), 0.0)
        tally = self.by_kernel.setdefault(name, [0, 0])
        tally[0] += tested
        tally[1] += accepted
        if name == FLOW:
            self.proposed += tested
            self.accepted += accepted
