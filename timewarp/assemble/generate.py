"""Training sets: thermal conformations of many peptides, by torsion moves on the batched energy.

Every peptide is one file: many walkers start at random angles, half of them at the prepared structure, and cool from
ten times the temperature to it or are the coldest rungs of a ladder; some of the late steps are kept. A file appears
whole or not at all, so a killed run goes on with the next peptide.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from timewarp.assemble.flown import flown
from timewarp.assemble.flows import bound
from timewarp.assemble.marginal import marginal
from timewarp.assemble.mixing import mixing
from timewarp.assemble.peptide import Peptide, warm
from timewarp.assemble.reference import at_rest, prepared
from timewarp.atomic import write_atomically
from timewarp.flow.internal import CHUNK, Internal, InternalProposal
from timewarp.flow.tree import tree
from timewarp.kernel import run
from timewarp.mcmc.torsions import TorsionState
from timewarp.settings import SettingsError
from timewarp.state import Molecule


@dataclass(frozen=True)
class Recipe:
    """How one peptide's frames are made.

    Attributes:
        walkers: chains side by side; with tempering each is the coldest rung of a ladder of its own.
        warm_up: torsion moves of a chain before the first frame: half of them hot; with tempering, of each rung.
        frames: kept a walker.
        every: moves between kept frames, times the number of free torsions; with tempering, of all rungs together.
        temperature: K.
        tempering: parallel tempering in place of a hot start.
        flow: fingerprint of the checkpoint that the chains' starts are drawn by, in place of a hot start.
    """

    walkers: int = 256
    warm_up: int = 160
    frames: int = 8
    every: float = 2.0
    temperature: float = 310.0
    tempering: bool = False
    flow: str | None = None  # fingerprint of the checkpoint whose draws are where the chains start

    def facts(self) -> dict[str, Any]:
        """What a shard and its directory say of it; silence about tempering and flow means a hot start."""
        return {name: value for name, value in asdict(self).items() if name not in ("tempering", "flow") or value}


def generate(
    molecules: Iterable[tuple[str, Callable[[], Molecule]]],
    out: Path,
    recipe: Recipe,
    seed: int,
    told: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    compiled: bool = True,
    flow: Internal | None = None,
) -> int:
    """Write one shard a peptide into `out`, leaving those that exist; returns the number of frames made.

    Args:
        molecules: names, and what builds each molecule.
        out: a directory.
        recipe: how.
        seed: with the name, of the random numbers.
        told: gets a line a shard.
        stop: asked before each shard.
        compiled: fuse the loops of the energy.
        flow: that `recipe.flow` names, without velocity channels.
    """
    out.mkdir(parents=True, exist_ok=True)
    made = 0
    for name, load in molecules:
        path = out / f"{name}.safetensors"
        if path.exists():
            continue
        if stop():
            break
        began = time.monotonic()
        number = seed_of(seed, name)
        rng = torch.Generator().manual_seed(number)
        peptide = Peptide.of(load(), recipe.temperature, compiled=compiled, seed=number)
        kept, own, how = made_by(peptide, recipe, rng, flow)
        facts = {"sequence": name, "seed": seed, "recipe": recipe.facts(), **how, **mixed(kept, recipe.walkers)}
        facts["seconds"] = time.monotonic() - began
        write_atomically(
            path,
            save(
                arrays(torch.cat([frame.positions for frame in kept]), peptide, rng) | own, {"facts": json.dumps(facts)}
            ),
        )
        frames = recipe.walkers * recipe.frames
        made += frames
        halves, found = facts["mean_energy_of_halves"], facts["mixing"]
        worst = max((found[name] for name in ("halves", "starts") if found[name] is not None), default=float("nan"))
        told(
            f"{name}: {frames} frames, acceptance {facts['acceptance']:.2f}, mean U/kT {halves[0]:.2f} then "
            f"{halves[1]:.2f}, populations differ by {worst:.2f}, {facts['seconds']:.0f} s"
        )
    return made


def made_by(
    peptide: Peptide, recipe: Recipe, rng: torch.Generator, flow: Internal | None
) -> tuple[Sequence[TorsionState], dict[str, torch.Tensor], dict[str, Any]]:
    """The kept states, further tensors of the shard, and facts."""
    if flow is not None:
        proposal, pause = bound(flow, peptide), max(1, round(recipe.every * peptide.chart.torsions))
        assert isinstance(proposal, InternalProposal)
        return flown(peptide, proposal, recipe.walkers, recipe.warm_up, recipe.frames, pause, rng)
    kept, how = zip(*(tempered if recipe.tempering else heated)(peptide, recipe, rng), strict=True)
    return kept, {}, how[-1]


def heated(peptide: Peptide, recipe: Recipe, rng: torch.Generator) -> Iterator[tuple[TorsionState, dict[str, Any]]]:
    """The kept states of walkers that cooled, each with the acceptance up to it."""
    walk = peptide.walk()
    state = walk.begin(recipe.walkers, rng)
    if half := recipe.walkers // 2:
        state = state.put(torch.arange(half), at_rest(peptide, walk, half))
    state = warm(walk, state, recipe.warm_up, rng)
    pause, accepted = max(1, round(recipe.every * peptide.chart.torsions)), 0.0
    for number, (state, info) in enumerate(run(walk, state, recipe.frames * pause, rng), 1):  # noqa: B020
        accepted += float(info["accepted"].float().mean())
        if number % pause == 0:
            yield state, {"acceptance": accepted / number}


def tempered(peptide: Peptide, recipe: Recipe, rng: torch.Generator) -> Iterator[tuple[TorsionState, dict[str, Any]]]:
    """The kept states of the coldest rungs, each with the acceptance up to it and how the ladder does."""
    tempering, state = prepared(peptide, recipe.walkers, rng, recipe.warm_up)
    heats = tempering.heats.tolist()
    pause = max(1, round(recipe.every * peptide.chart.torsions / (tempering.between * len(heats))))
    accepted = 0.0
    for number, (state, info) in enumerate(run(tempering, state, recipe.frames * pause, rng), 1):  # noqa: B020
        accepted += float(info["accepted"].float().mean())
        if number % pause == 0:
            ladder = {"heats": heats, "swaps": [round(float(a), 4) for a in state.acceptance.nan_to_num()]}
            yield state.cold, {"acceptance": accepted / number, "ladder": ladder}


def mixed(kept: Sequence[TorsionState], walkers: int) -> dict[str, Any]:
    """What the frames say of how well they are mixed; of one frame both halves are the whole."""
    halves = [
        float(torch.cat([frame.energy for frame in part]).mean())
        for part in (kept[: (len(kept) + 1) // 2], kept[len(kept) // 2 :])
    ]
    torsions = torch.stack([frame.torsions for frame in kept], 1)
    energy = torch.stack([frame.energy for frame in kept], 1)
    start = [int(number >= walkers // 2) for number in range(walkers)]
    return {"mean_energy_of_halves": halves, "mixing": mixing(torsions, energy, start)}


def arrays(positions: torch.Tensor, peptide: Peptide, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """The tensors of a shard: the frames, and what it takes to make the molecule and its chart again."""
    blocks = []
    for part in positions.split(CHUNK):
        torsions, stiff, _ = peptide.chart.forward(part)
        noise = peptide.stiff.pull(peptide.stiff.at(torsions), stiff)[0]
        blocks.append((torsions, noise, marginal(peptide, torsions, rng).free))
    torsions, noise, free = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    tensors = {"positions": positions, "torsions": torsions, "noise": noise, "free": free}
    tensors |= {f"molecule.{k}": v for k, v in peptide.molecule.arrays().items()}
    tensors |= {f"chart.{k}": v for k, v in peptide.chart.arrays().items()}
    return {k: v.contiguous() for k, v in tensors.items()}


def seed_of(seed: int, name: str) -> int:
    """Of one peptide, so that a shard does not depend on which others were made before it."""
    return int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Shard:
    """The frames of one peptide, with what it takes to make its molecule and chart again.

    `noise` is what `Stiff` carries to a frame's stiff coordinates: N(0, I), where that law is right. `free` is the
    `Marginal` of its torsions. `drawn`, torsions that a flow drew with the same of theirs, may be empty.
    """

    sequence: str
    molecule: Molecule
    whitening: dict[str, torch.Tensor]
    positions: torch.Tensor
    torsions: torch.Tensor
    noise: torch.Tensor
    free: torch.Tensor
    drawn: tuple[torch.Tensor, torch.Tensor]
    facts: dict

    @classmethod
    def read(cls, path: Path) -> Shard:
        """Read a shard that `generate` wrote.

        Raises:
            SettingsError: if it is of an earlier version.
        """
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

        def under(prefix):
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        molecule = Molecule.from_arrays(under("molecule."))
        if "free" not in tensors or bool(tree(molecule).rings) != ("chart.closing" in tensors):
            raise SettingsError(f"{path}: made with another version; remove it and make it again with timewarp data")
        frames = {name: tensors[name] for name in ("positions", "torsions", "noise", "free")}
        none = frames["torsions"][:0], frames["free"][:0]
        drawn = tuple(
            tensors.get(f"drawn.{name}", empty) for name, empty in zip(("torsions", "free"), none, strict=True)
        )
        return cls(facts["sequence"], molecule, under("chart."), drawn=drawn, facts=facts, **frames)
