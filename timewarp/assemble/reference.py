"""The default reference sampler: exact parallel tempering of torsion moves, run until its parts agree."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timewarp import units
from timewarp.assemble.mixing import mixing
from timewarp.assemble.peptide import Peptide, warm
from timewarp.mcmc.captured import stepping
from timewarp.mcmc.dynamics import repartitioned
from timewarp.mcmc.local import Hamiltonian
from timewarp.mcmc.tempering import Ladders, Tempering, adapted
from timewarp.mcmc.torsions import Torsions, TorsionState
from timewarp.state import Positions, State

LADDERS = 64
HOTTEST = 10.0  # in units of the target's temperature: only what turns is heated
PILOT = 6  # rungs
SWAPS = 0.3  # accepted
BETWEEN = 3  # torsion moves between rounds of swaps
WARM_UP = 60  # torsion moves before the pilot, which takes twice as many
LEAPS, LEAP = 8, 0.0015  # ps


@dataclass(frozen=True)
class Reference:
    """Frames of the Boltzmann distribution, and what is known of how well they were sampled.

    Attributes:
        positions: nm; frame by frame, the ladders side by side: frame f of ladder l is `f * ladders + l`.
        torsions: the free torsions of the chart, rad.
        energy: U/kT.
        ladders: independent samplers; the first half began at the prepared structure, the others anywhere.
        facts: see `mixing`, with the `heats`, share of `swaps`, `rounds` a frame and `seconds`.
    """

    positions: Positions
    torsions: Tensor
    energy: Tensor
    ladders: int
    facts: dict[str, Any]

    @property
    def agree(self) -> bool:
        """Whether halves and starts agree."""
        return self.facts["agree"]


def reference_ensemble(
    peptide: Peptide,
    frames: int,
    seed: int = 0,
    seconds: float | None = None,
    told: Callable[[str], None] = lambda _: None,
    ladders: int = LADDERS,
) -> Reference:
    """Frames at the peptide's temperature by parallel tempering, twice as long each time until they agree.

    Every time the frames of the time before are left out, as its warm-up.

    Args:
        peptide: with its chart, where this is computed, and potential.
        frames: wanted; rounded up to a multiple of `ladders`.
        seed: of all random numbers.
        seconds: after which the best so far is returned, agreed or not (fewer frames, if the first time was not over);
            None for no limit.
        told: gets a line each time.
        ladders: independent samplers.
    """
    began = time.monotonic()
    rng = torch.Generator(peptide.chart.root.device).manual_seed(seed)
    tempering, state = prepared(peptide, ladders, rng)
    further = stepping(tempering, state, rng)
    length, rounds, best, over = -(-frames // ladders), 2, None, False
    while True:
        kept: list[Ladders] = []
        for _ in range(length):
            for state in further(state, rounds):  # noqa: B007, B020
                if over := seconds is not None and time.monotonic() - began > seconds:
                    break
            else:
                kept.append(state.cold)
            if over:
                break
        if best is None or len(kept) == length:
            kept = kept or [state.cold]
            facts = {"heats": tempering.heats.tolist(), "swaps": state.acceptance.tolist(), "rounds": rounds}
            best = _gathered(kept, ladders, facts | {"seconds": time.monotonic() - began})
            told(describe(best))
        if over or best.agree:
            return best
        rounds *= 2


def prepared(
    peptide: Peptide, ladders: int, rng: torch.Generator, warm_up: int | None = None
) -> tuple[Tempering, Ladders]:
    """The sampler, its rungs spaced and frozen; half of the ladders begin at the prepared structure.

    Args:
        peptide: with its chart and potential.
        ladders: independent samplers.
        rng: of all random numbers.
        warm_up: torsion moves of each replica, a third of them before the pilot; 3 `WARM_UP` if not given.
    """
    warm_up = 3 * WARM_UP if warm_up is None else warm_up
    walk = peptide.walk(2)
    device = peptide.chart.root.device
    heats = torch.logspace(0, 1, PILOT, base=HOTTEST, dtype=torch.float64, device=device)
    anywhere = warm(walk, walk.begin(ladders * PILOT, rng), warm_up // 3, rng)
    half = torch.arange(ladders // 2 * PILOT, device=device)
    own = at_rest(peptide, walk, len(half))
    tempering = Tempering(walk, heats, BETWEEN, local(peptide))
    state = tempering.of(anywhere.put(half, own) if len(half) else anywhere)
    return adapted(tempering, state, max(1, 2 * warm_up // (3 * BETWEEN)), rng, SWAPS)


def at_rest(peptide: Peptide, walk: Torsions, chains: int) -> TorsionState:
    """Chains at the prepared structure."""
    structure = peptide.molecule.reference.to(peptide.chart.root.device, peptide.chart.dtype)
    return walk.init(State.at(structure.repeat(max(chains, 1), 1, 1)))


def local(peptide: Peptide) -> Hamiltonian:
    """Short trajectories of the target, which stir the stiff coordinates that torsion moves only follow."""
    size = LEAP * units.kT(peptide.temperature) ** 0.5
    masses = repartitioned(peptide.molecule).to(peptide.chart.root.device)
    return Hamiltonian(peptide.potential, masses, size, LEAPS)


def describe(reference: Reference) -> str:
    """One line on how well it is sampled."""
    facts = reference.facts

    def figure(name: str, form: str) -> str:
        return "?" if facts[name] is None else format(facts[name], form)

    return (
        f"{len(reference.positions)} frames of {reference.ladders} ladders with {len(facts['heats'])} rungs: "
        f"populations differ by {figure('halves', '.3f')} between halves, {figure('starts', '.3f')} between starts, "
        f"R-hat {figure('rhat', '.3f')}, ESS {figure('ess', '.0f')}, {facts['seconds']:.0f} s: "
        f"{'they agree' if reference.agree else 'not yet in agreement'}"
    )


def _gathered(kept, ladders, facts) -> Reference:
    torsions = torch.stack([frame.torsions for frame in kept], 1).cpu()
    energy = torch.stack([frame.energy for frame in kept], 1).cpu()
    start = [int(number >= ladders // 2) for number in range(ladders)]
    facts = facts | mixing(torsions, energy, start)
    positions = torch.cat([frame.positions for frame in kept]).cpu()
    return Reference(positions, torsions.transpose(0, 1).flatten(0, 1), energy.T.flatten(), ladders, facts)
