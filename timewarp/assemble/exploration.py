"""What is known of a molecule's states before it is sampled: where quick walks ended, and how many of them.

Chains that start in different states, and a verdict that asks for the states that were found, both stand on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from timewarp.analysis import Ensemble
from timewarp.analysis.basins import states
from timewarp.assemble.peptide import Peptide, warm
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import InternalProposal
from timewarp.kernel import Proposal
from timewarp.mcmc import Annealed
from timewarp.state import Positions, State

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

WALKERS = 64
STEPS = 120  # torsion moves, the first half of them from ten times the temperature down to it
FURTHER = 20  # of walks that have been as far already
MEETINGS = 8  # proposals of the flow that each walker is tested against
MOST = 10.0  # kT of free energy above the usual: a walker that high is in a state that hardly counts
FEWEST = 0.25  # share of the walkers that has to take up proposals for the others to be judged by these
WANTED = 0.05  # share of the walkers from which on a state has to be visited


@dataclass(frozen=True)
class Exploration:
    """Configurations of a molecule, and the state that each of them is in.

    Attributes:
        positions: nm.
        words: a letter a residue, see `analysis.basins`.
    """

    positions: Positions
    words: tuple[str, ...]

    @classmethod
    def of(cls, prepared: Prepared, positions: Positions) -> Exploration:
        """The exploration that ended at these positions [walkers, atoms, 3]."""
        return cls(positions, tuple(words_of(prepared, positions)))

    @classmethod
    def walked(cls, peptide: Peptide, prepared: Prepared, least: int, rng: torch.Generator) -> Exploration:
        """Where torsion walks from random angles, at `least` so many, end that cool from ten times the temperature.

        The walks that made the peptide's chart are such: if they are as many, they go on in it for a few steps.
        """
        walk = peptide.walk()
        if peptide.walkers is not None and len(peptide.walkers) >= least:
            state = walk.init(State.at(peptide.walkers))
            for _ in range(FURTHER):
                state, _ = walk.step(state, rng)
            return cls.of(prepared, state.positions)
        state = warm(walk, walk.begin(max(WALKERS, least), rng), STEPS, rng)
        good = state.log_density.isfinite()
        return cls.of(prepared, state.positions[good] if good.any() else state.positions)

    def mingled(self, peptide: Peptide, prepared: Prepared, proposal: Proposal, rng: torch.Generator) -> Exploration:
        """The walkers after tests against the flow's proposals, without those that are stuck where hardly any mass is.

        Walks from random angles end in traps, tens of kT above the rest in free energy at given torsions. Most walkers
        leave them for what the flow proposes. One that does not is kept where its state may matter: a state has less
        entropy than the whole ensemble, so that ln of its population is at most minus what its free energy is above
        the mean. Where few walkers take up any proposal, all stay as they are.
        """
        if not isinstance(proposal, InternalProposal) or proposal.channels:
            return self
        kernel = Annealed(peptide.potential, FactoredInternal(proposal), 0, MEETINGS)
        try:
            queue = kernel.init(State.at(self.positions))
        except ValueError:  # a walker has no finite density
            return self
        moved = torch.zeros(len(self.positions), dtype=torch.bool)
        for _ in range(MEETINGS):
            queue, info = kernel.step(queue, rng)
            moved |= info["accepted"].cpu()
        positions = queue.state.positions
        if moved.float().mean() < FEWEST:
            return self
        depth = peptide.stiff.free_energy(peptide.chart.forward(positions)[0]).cpu()
        kept = moved | (depth < depth[moved].median() + MOST)
        return self.of(prepared, positions[kept.to(positions.device)])

    @classmethod
    def relaxed(cls, peptide: Peptide, prepared: Prepared, found: Positions, rng: torch.Generator) -> Exploration:
        """Where torsion walks at the temperature of `peptide` end that begin at the configurations `found`, in turn."""
        walk = peptide.walk()
        index = torch.arange(max(WALKERS, len(found))) % len(found)
        state = walk.init(State.at(found[index]))
        for _ in range(STEPS // 2):
            state, _ = walk.step(state, rng)
        return cls.of(prepared, state.positions)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the walkers in each state, the largest first; a hint, no population."""
        counts = {word: self.words.count(word) / len(self.words) for word in self.words}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def starts(self, chains: int, rng: torch.Generator) -> Positions:
        """Positions for so many chains: a walker of each state in turn, so that few chains start alike."""
        order = torch.randperm(len(self.words), generator=rng).tolist()
        waiting = {word: [i for i in order if self.words[i] == word] for word in self.shares}
        picks: list[int] = []
        while len(picks) < chains:
            for members in waiting.values():
                # a state that has no more walkers gives its first again
                picks.append(members[len(picks) // len(waiting) % len(members)])
        return self.positions[torch.tensor(picks[:chains])]


def words_of(prepared: Prepared, positions: Tensor) -> list[str]:
    """The states of configurations [..., atoms, 3], in one list."""
    import mdtraj

    topology = mdtraj.Topology.from_openmm(prepared.topology)
    frames = positions.detach().reshape(1, -1, *positions.shape[-2:]).cpu().numpy()
    return [str(word) for word in states(Ensemble.of(topology, frames))[0]]


def unvisited(explored: Mapping[str, float], visited: set[str]) -> list[str]:
    """Sentences on the states that many walks ended in and no chain was in."""
    lost = {word: share for word, share in explored.items() if word and share >= WANTED and word not in visited}
    return [
        f"no chain visited the state {word}, in which {share:.0%} of the exploring walks ended"
        for word, share in lost.items()
    ]
