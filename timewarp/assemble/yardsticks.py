"""How a `Yardstick` is made: parallel tempering, or long OpenMM MD; slow coordinates from dynamics either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from timewarp.analysis.distances import thinned
from timewarp.analysis.features import LAG, tica_features
from timewarp.analysis.tica import Tica, fit_tica
from timewarp.assemble.md import md
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.reference import reference_ensemble
from timewarp.assemble.scores import distances
from timewarp.assemble.yardstick import Yardstick, cache, kept
from timewarp.dcd import Trajectory
from timewarp.energy import Potential
from timewarp.mcmc.captured import stepping
from timewarp.mcmc.dynamics import Langevin
from timewarp.settings import MDSettings, Progress, Protocol, Stop
from timewarp.state import State

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

COMPILED = 500  # frames of a half that are worth the half minute of compiling the energy
LADDERS = 512  # of tempering on a GPU, at most
SEED = 20_25  # of all references: what samples are compared with does not change with their seed


class Stopped(Exception):
    """Asked to stop before the reference was there."""


@dataclass(frozen=True)
class Recipe:
    """How a reference is made.

    Attributes:
        frames: of each half.
        nanoseconds: of OpenMM MD in all, half of it a half; 0 for parallel tempering.
        seconds: after which parallel tempering returns what it has, whether its halves agree or not.
        starts: frames of parallel tempering from which dynamics runs, for slow coordinates.
        lag: ps, of these; their eigenvalues are carried on to the published 100 ps with their timescales. In MD the
            lag is 100 ps itself, if a half is ten times as long.
        every: ps between frames of that dynamics.
    """

    frames: int = 10_000
    nanoseconds: float = 0.0
    seconds: float = 1800.0
    starts: int = 256
    lag: float = 10.0
    every: float = 1.0


QUICK = Recipe(lag=5.0, starts=64)  # of slow coordinates from less dynamics


def yardstick(
    prepared: Prepared, temperature: float, recipe: Recipe, progress: Progress, stop: Stop, device: str = "cpu"
) -> Yardstick:
    """The reference ensemble of a peptide, from the cache or made now, on a device where it is tempering.

    Raises:
        Stopped: if it was asked to stop meanwhile.
    """
    from timewarp.md.energy import fingerprint

    # the System of a D residue is that of its mirror image: the name tells them apart
    identity = {"peptide": prepared.sequence, "potential": fingerprint(prepared.system), "temperature": temperature}
    make = _from_md if recipe.nanoseconds else partial(_tempered, device=device)
    return kept(
        identity | {"recipe": asdict(recipe)},
        prepared.sequence,
        lambda: make(prepared, temperature, recipe, progress, stop),
    )


def _tempered(
    prepared, temperature: float, recipe: Recipe, progress: Progress, stop: Stop, device: str = "cpu"
) -> Yardstick:
    """Frames of parallel tempering, every other ladder to one half; slow coordinates by Langevin dynamics from them."""
    import mdtraj

    from timewarp.assemble.energy import energy_of

    energy, molecule, _ = energy_of(prepared, temperature, compiled=device == "cpu" and recipe.frames >= COMPILED)
    peptide = Peptide.of(molecule, temperature, potential=energy, seed=SEED)
    if device != "cpu" and isinstance(energy, Potential):
        peptide = peptide.on(device)

    def told(line: str) -> None:
        progress(0.5, line)
        if stop():
            raise Stopped

    told(f"reference: parallel tempering for 2 x {recipe.frames} frames")
    ladders = min(64, max(8, recipe.frames // 100 * 2))
    if device == "cuda":
        ladders = min(LADDERS, max(64, recipe.frames // 20 * 2))
    made = reference_ensemble(peptide, 2 * recipe.frames, SEED, recipe.seconds, told, ladders)
    told("reference: slow coordinates")
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    halves = [
        _side_by_side(part, made.ladders, recipe.frames)
        for part in (made.positions.float().numpy(), made.energy.double().numpy())
    ]
    positions, energies = halves
    series = _dynamics(peptide, positions.reshape(-1, *positions.shape[2:]), recipe, told)
    tica = fit_tica(tica_features(topology, series), lag=round(recipe.lag / recipe.every))
    facts = {"method": "parallel tempering", **made.facts}
    return _finished(topology, positions, energies, tica.kinetic(LAG / recipe.every), facts, told)


def _side_by_side(values: np.ndarray, ladders: int, frames: int) -> np.ndarray:
    """Frame f of ladder l at `f * ladders + l` -> even ladders, then odd ones; as many frames of each."""
    each = values.reshape(-1, ladders, *values.shape[1:])
    halves = [each[:, side : ladders // 2 * 2 : 2].reshape(-1, *values.shape[1:]) for side in (0, 1)]
    return np.stack([thinned(half, frames) for half in halves])


def _dynamics(
    peptide: Peptide, frames: Float[np.ndarray, "frames atoms 3"], recipe: Recipe, told: Callable[[str], None]
) -> Float[np.ndarray, "starts series atoms 3"]:
    """Twice the lag of Langevin dynamics (2 fs, 1/ps, hydrogens of 3 amu) from each of some thermal frames.

    From thermal starts, pairs of frames a lag apart have the covariances of one infinitely long trajectory.
    """
    device = peptide.chart.root.device
    rng = torch.Generator(device).manual_seed(SEED)
    starts = torch.as_tensor(thinned(frames, recipe.starts)).to(device)
    if not isinstance(peptide.potential, Potential):
        raise ValueError("expected a force field that the batched potential knows; use --reference-ns")
    steps = max(1, round(recipe.every / 0.002))
    kernel = Langevin.of(peptide.molecule, peptide.potential, peptide.temperature, steps=steps).on(device)
    phase = kernel.init(State.at(starts, 3, rng))
    series = [phase.positions]
    length = 2 * round(recipe.lag / recipe.every)
    further = stepping(kernel, phase, rng, 1)
    for number in range(1, length + 1):
        for phase in further(phase, 1):  # noqa: B020
            series.append(phase.positions)
        told(f"reference: slow coordinates, {number * recipe.every:g} of {length * recipe.every:g} ps")
    return torch.stack(series, 1).cpu().numpy()


def _from_md(prepared, temperature: float, recipe: Recipe, progress: Progress, stop: Stop) -> Yardstick:
    """Two chains of unconstrained OpenMM MD (0.5 fs, as published); a stopped run goes on where it was."""
    import mdtraj

    from timewarp.assemble.energy import energy_of
    from timewarp.md.pdb import write_pdb

    half = 500.0 * recipe.nanoseconds  # ps of a chain, behind the tenth of it that is left out as warm-up
    steps = round(1.1 * half / 0.0005)
    interval = half / recipe.frames
    out = cache() / f"md-{prepared.sequence}-{temperature:g}K-{recipe.nanoseconds:g}ns-{recipe.frames}"
    out.mkdir(parents=True, exist_ok=True)
    pdb = out / "start.pdb"
    if not pdb.exists():
        write_pdb(prepared.topology, prepared.positions, pdb)
    settings = MDSettings(
        pdb=pdb, out=out / "run", steps=steps, chains=2, temperature=temperature, seed=SEED, interval=interval,
        protocol=Protocol.PAPER, resume=True,
    )  # fmt: skip
    report = md(settings, lambda share, text: progress(share, f"reference MD: {text}"), stop)
    if report["steps"] < steps:
        raise Stopped
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    paths: list[Path] = sorted((out / "run").glob("chain-*.dcd"))
    chains = np.stack([Trajectory(path, topology.n_atoms).read()[-recipe.frames :] for path in paths])
    energy, _, _ = energy_of(prepared, temperature)
    energies = np.stack([energy(torch.as_tensor(chain)).double().numpy() for chain in chains])
    lag = max(1, min(round(LAG / interval), recipe.frames // 10))
    tica = fit_tica(tica_features(topology, chains), lag=lag)
    facts = {"method": "MD", "nanoseconds": recipe.nanoseconds, "lag": lag * interval, "interval": interval}
    return _finished(topology, chains, energies, tica.kinetic(LAG / interval), facts, lambda line: progress(0.9, line))


def _finished(topology, positions, energies, tica: Tica, facts, told: Callable[[str], None]) -> Yardstick:
    told("reference: distance of its halves")
    one, two = zip(positions, energies, strict=True)
    return Yardstick(positions, energies, tica, distances(topology, tica, one, two), facts)
