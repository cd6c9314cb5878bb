"""Training sets: thermal conformations of many peptides, by torsion moves on the batched energy.

Every peptide is one file: many walkers start at random angles, cool from ten times the temperature to it, and then
walk at it; some of the late steps are kept. A file appears whole or not at all, so a killed run goes on
with the next peptide.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from timewarp.assemble.peptide import Peptide, warm
from timewarp.state import Molecule


@dataclass(frozen=True)
class Recipe:
    """How one peptide's frames are made.

    Attributes:
        walkers: chains side by side.
        warm_up: torsion moves a walker before the first frame, half of them hot.
        frames: kept a walker.
        every: moves between kept frames, times the number of free torsions.
        temperature: K.
    """

    walkers: int = 256
    warm_up: int = 160
    frames: int = 8
    every: float = 2.0
    temperature: float = 310.0


_FRAMES = ("positions", "torsions", "noise", "mean")


def generate(
    molecules: Iterable[tuple[str, Callable[[], Molecule]]],
    out: Path,
    recipe: Recipe,
    seed: int,
    told: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    compiled: bool = True,
) -> int:
    """Write one shard a peptide into `out`, leaving those that exist; returns the number of frames made."""
    out.mkdir(parents=True, exist_ok=True)
    made = 0
    for name, load in molecules:
        path = out / f"{name}.safetensors"
        if path.exists():
            continue
        if stop():
            break
        began = time.monotonic()
        own = seed_of(seed, name)
        rng = torch.Generator().manual_seed(own)
        peptide = Peptide.of(load(), recipe.temperature, compiled=compiled, seed=own)
        walk = peptide.walk()
        state = warm(walk, walk.begin(recipe.walkers, rng), recipe.warm_up, rng)
        pause = max(1, round(recipe.every * peptide.chart.torsions))
        kept, accepted = [], 0.0
        for _ in range(recipe.frames):
            for _ in range(pause):
                state, info = walk.step(state, rng)
                accepted += float(info["accepted"].float().mean())
            kept.append(state)
        # of one frame both halves are the whole
        halves = [
            float(torch.cat([frame.energy for frame in part]).mean())
            for part in (kept[: (len(kept) + 1) // 2], kept[len(kept) // 2 :])
        ]
        facts = {
            "sequence": name,
            "seed": seed,
            "recipe": asdict(recipe),
            "acceptance": accepted / (recipe.frames * pause),
            "mean_energy_of_halves": halves,
            "seconds": time.monotonic() - began,
        }
        tensors = {k: torch.cat([getattr(frame, k) for frame in kept]) for k in _FRAMES}
        stiff = tensors["mean"] + tensors["noise"]
        tensors["mean"] = torch.cat([peptide.response(part) for part in tensors["torsions"].split(512)])
        tensors["noise"] = stiff - tensors["mean"]
        tensors |= {f"molecule.{k}": v.contiguous() for k, v in peptide.molecule.arrays().items()}
        tensors |= {f"chart.{k}": v.contiguous() for k, v in peptide.chart.arrays().items()}
        half = out / f".{name}.tmp"
        save_file(tensors, half, metadata={"facts": json.dumps(facts)})
        os.replace(half, path)
        made += len(tensors["positions"])
        told(
            f"{name}: {len(tensors['positions'])} frames, acceptance {facts['acceptance']:.2f}, "
            f"mean U/kT {halves[0]:.2f} then {halves[1]:.2f}, {facts['seconds']:.0f} s"
        )
    return made


def seed_of(seed: int, name: str) -> int:
    """Of one peptide, so that a shard does not depend on which others were made before it."""
    return int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Shard:
    """The frames of one peptide, with what it takes to make its molecule and chart again.

    `mean` is the relaxed stiff coordinates of a frame's torsions, `noise` what its stiff coordinates add to them.
    """

    sequence: str
    molecule: Molecule
    whitening: dict[str, torch.Tensor]
    positions: torch.Tensor
    torsions: torch.Tensor
    noise: torch.Tensor
    mean: torch.Tensor
    facts: dict

    @classmethod
    def read(cls, path: Path) -> Shard:
        """Read a shard that `generate` wrote."""
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

        def under(prefix):
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        molecule = Molecule.from_arrays(under("molecule."))
        frames = {name: tensors[name] for name in _FRAMES}
        return cls(facts["sequence"], molecule, under("chart."), facts=facts, **frames)
