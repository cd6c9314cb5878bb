"""`timewarp sample` and `timewarp explore`: chains of one peptide, from a file to a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from timewarp import units
from timewarp.assemble import reporting
from timewarp.assemble.adapt import NAME, adapted_to, chart_of
from timewarp.assemble.afar import Afar
from timewarp.assemble.energy import energy_of
from timewarp.assemble.exploration import Exploration
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.fusing import fused
from timewarp.assemble.kernels import LONGEST, flow_kernel, length, parted, regrowth_of, undivided
from timewarp.assemble.looping import Loop
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.tally import FLOW, LOCAL, REGROWTH, TORSIONS, TURNING, Tally
from timewarp.assemble.verifying import said, verification, verified
from timewarp.assemble.warming import Warming, relies_on_local_moves, warm_up_of
from timewarp.flow.pose import posed
from timewarp.kernel import Proposal
from timewarp.mcmc import Crew, Cycle, Explore, Hamiltonian, Repeat
from timewarp.output import RunDirectory
from timewarp.resources import checkpoint_path
from timewarp.settings import ExploreSettings, Progress, Report, SampleSettings, Stop
from timewarp.state import State
from timewarp.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

LEAPFROG = 0.0024  # nm sqrt(amu): 1.5 fs at 310 K
HYDROGEN = 3.0  # amu, of hydrogens in local moves
MOVES = 6  # local moves for a frame


Found = Callable[[Peptide, "Prepared", torch.Generator], Exploration]


def sample(settings: SampleSettings, progress: Progress, stop: Stop) -> Report:
    """Exact chains of the Boltzmann distribution of the peptide in `settings.pdb`."""
    return chains_of(settings, progress, stop)


def chains_of(
    settings: SampleSettings | ExploreSettings, progress: Progress, stop: Stop, found: Found | None = None
) -> Report:
    """One run of chains, from a file to a report.

    Args:
        settings: exact chains or explorations.
        progress: told the share that is done, and a few words.
        stop: whether to finish the step, save, report and return.
        found: what is known of the states to start in, in place of a walk that looks for them.
    """
    from timewarp.md.system import prepare

    began = time.monotonic()
    device = settings.device.resolve()
    progress(0.0, "reading the structure")
    prepared = prepare(settings.pdb)
    path = checkpoint_path(settings.checkpoint)
    checkpoint = Checkpoint.load(path.with_suffix(""))
    load_flow(checkpoint)  # one that cannot be used is refused before anything is written
    identity = reporting.identity(settings, prepared, weights=checkpoint.fingerprint)
    with (
        RunDirectory.open(settings.out, identity, settings.resume) as directory,
        undivided() as cores,
        Crew(cores) as crew,
    ):
        saved = directory.saved
        progress(0.0, "checking the energy against OpenMM")
        energy, molecule, notices = energy_of(prepared, settings.temperature, device=device)
        compile_it = saved.meta["tally"].get("fused", False) if saved else None
        minutes = settings.adapt if isinstance(settings, SampleSettings) else None
        if compile_it is None:
            limits = (None, 60 * minutes + (settings.seconds or 0.0)) if minutes else (settings.steps, settings.seconds)
            compile_it, told = fused(energy, *limits, progress, stop)
            notices = (*notices, *told)
        if compile_it:
            energy.compiled = True  # type: ignore[attr-defined]
        whitening = chart_of(checkpoint, prepared, molecule, settings.temperature)
        if saved:
            whitening = {k.removeprefix("chart."): v for k, v in saved.tensors.items() if k.startswith("chart.")}
        progress(0.0, "preparing the chart")
        peptide = Peptide.of(molecule, settings.temperature, potential=energy, whitening=whitening, seed=settings.seed)
        starts, frozen = None, directory.path / NAME
        if not saved:
            reporting.begin(directory, prepared, settings.chains)
        if isinstance(settings, SampleSettings) and minutes and not saved:
            torch.set_num_threads(cores)
            adapted, learned = adapted_to(
                peptide, prepared, checkpoint, str(settings.checkpoint), minutes, settings.seed,
                progress, stop, settings.anneal,
            )  # fmt: skip
            torch.set_num_threads(1)
            learned.save(frozen)
            starts = adapted.thermal.positions
        if minutes:
            checkpoint = Checkpoint.load(frozen)  # what samples is what the file holds
        proposal = bound(load_flow(checkpoint), peptide)
        tally = Tally(**(saved.meta["tally"] if saved else {}) | {"fused": compile_it})
        afar = None
        if device == "cuda" and isinstance(settings, SampleSettings):
            afar = Afar.of(peptide, checkpoint, settings.anneal, settings.particles)
            if afar and not saved:
                tally.width = max(settings.width, afar.width)
        kernel, names = _kernel(settings, peptide, proposal, afar or crew, tally.width)
        rng = torch.Generator().manual_seed(settings.seed)
        verify = isinstance(settings, SampleSettings) and settings.verify
        if saved:
            rng = saved.generator()
        else:
            progress(0.0, "looking for states to start from")
            first = _start(settings, peptide, proposal, prepared, rng, tally, starts, found)
            state = kernel.init(first)
            if isinstance(settings, SampleSettings):
                warming = Warming(kernel, names, peptide, prepared, settings.warm_up, settings.width)
                state = warming(state, rng, tally, progress)
                if afar:
                    tally.weights = afar.favoured(tally.weights or kernel.weights)
            tally.setup = time.monotonic() - began
        if tally.weights:
            rounds = length(tally.weights, max(LONGEST, tally.width))
            kernel = replace(kernel, weights=tuple(tally.weights), length=rounds)
            notices = (*notices, *relies_on_local_moves(tally, names))
        mixed, kernel = kernel, verified(kernel, prepared, settings.temperature) if verify else kernel
        if saved:
            state = kernel.restore({k.removeprefix("kernel."): v for k, v in saved.tensors.items() if "kernel." in k})
        elif verify:
            state = kernel.begun(state)  # the warm-up leaves no frame, and asks OpenMM nothing
        pose = torch.as_tensor(prepared.positions, dtype=torch.float32)
        loop = Loop(settings, directory, kernel, names, peptide, proposal, pose, progress, stop, began, tally.seconds)
        loop.run(state, tally, rng)
        more: dict[str, Any] = _adaptation(checkpoint) if minutes else {}
        if verify:
            more["verify"] = verification(tally, settings.temperature)
            notices = (*notices, said(more["verify"]))
        return reporting.finish(
            settings,
            directory,
            prepared,
            exact=isinstance(settings, SampleSettings),
            checkpoint=str(settings.checkpoint),
            tally=tally,
            explored=tally.explored,
            seen=tally.seen,
            notices=[*prepared.notices, *notices],
            warm_up=warm_up_of(settings, mixed, names, tally),
            **more,
        )


def _adaptation(checkpoint: Checkpoint) -> dict[str, Any]:
    facts = checkpoint.card["adaptation"]
    return {"adapted_minutes": facts["minutes"], "adaptation": facts}


def _kernel(
    settings, peptide: Peptide, proposal: Proposal, crew: Crew | Afar, width: int
) -> tuple[Any, tuple[str, ...]]:
    """The kernel of the run and, in its order, the names of the moves that it mixes."""
    energy = peptide.potential
    if isinstance(settings, ExploreSettings):
        rise = settings.rise / units.kT(settings.temperature)
        return Explore(energy, proposal, rise, peptide.same_hand), (FLOW,)
    together = crew.together if isinstance(crew, Afar) else None
    width = width or settings.width
    flow = flow_kernel(peptide, proposal, settings.anneal, width, settings.particles, crew, together)
    heavy = peptide.molecule.masses.float().clamp_min(HYDROGEN)
    local = Repeat(Hamiltonian(energy, heavy, LEAPFROG, steps=10), MOVES)
    if not peptide.chart.torsions:
        return Cycle((flow, local), (0.9, 0.1)), (FLOW, LOCAL)
    walk, partly = Repeat(peptide.walk(), MOVES), regrowth_of(flow)
    if partly is None:
        return Cycle((flow, walk, local), (0.9, 0.05, 0.05)), (FLOW, TORSIONS, LOCAL)
    weights = parted((0.9, 0.05, 0.05))
    return Cycle((flow, *partly, walk, local), weights, length(weights)), (FLOW, REGROWTH, TURNING, TORSIONS, LOCAL)


def _start(
    settings, peptide: Peptide, proposal: Proposal, prepared, rng: torch.Generator, tally: Tally,
    starts: Tensor | None = None, known: Found | None = None,
) -> State:  # fmt: skip
    """Where the chains start: exact chains from different states, explorations from the prepared structure.

    Walks look for the states where there are no thermal `starts` to choose from; where no bond turns, all chains start
    from the structure.
    """
    structure = torch.as_tensor(prepared.positions, dtype=torch.float32).expand(settings.chains, -1, -1)
    if isinstance(settings, ExploreSettings) or not peptide.chart.torsions:
        return State.at(structure.clone(), proposal.channels, rng)
    if known is not None:
        found = known(peptide, prepared, rng)
    elif starts is None:
        found = Exploration.walked(peptide, prepared, settings.chains, rng).mingled(peptide, prepared, proposal, rng)
    else:
        found = Exploration.of(prepared, starts)
    tally.explored = found.shares
    return State.at(posed(found.starts(settings.chains, rng), structure, peptide.frame), proposal.channels, rng)
