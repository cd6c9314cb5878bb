"""Shards whose frames are drawn anew by a flow: exact chains cross the barriers that torsion walks do not.

A hot start leaves a side chain where it cooled; independence chains of a flow that accepts a fifth of its draws forget
their start in some dozen of them. What a flow learned from the walks makes better frames for the next flow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from timewarp.assemble.flows import bound
from timewarp.assemble.generate import Shard, arrays, seed_of
from timewarp.assemble.marginal import marginal
from timewarp.assemble.peptide import Peptide
from timewarp.atomic import write_atomically
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import Internal, InternalProposal
from timewarp.kernel import run
from timewarp.mcmc import Annealed
from timewarp.state import State

CHAINS = 32
BURN = 64  # tests of each chain before its first frame
STAGES = 2
OWN = 1024  # draws of the flow that a shard keeps


def redraw(
    shards: Iterable[Path],
    flow: Internal,
    out: Path,
    frames: int,
    seed: int,
    told: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    compiled: bool = True,
) -> int:
    """Write to `out` each of `shards` with new frames, leaving those that exist; returns how many were written.

    Args:
        shards: files that `generate` wrote; their charts are kept.
        flow: proposes; without velocity channels.
        out: a directory.
        frames: of each of `CHAINS` chains, every fourth state.
        seed: with the name, of the random numbers.
        told: gets a line a shard.
        stop: asked before each shard.
        compiled: fuse the loops of the energy.
    """
    written = 0
    for path in shards:
        target = out / path.name
        if target.exists():
            continue
        if stop():
            break
        shard = Shard.read(path)
        tensors, facts = _drawn(shard, flow, frames, seed_of(seed, shard.sequence), compiled)
        write_atomically(target, save(tensors, {"facts": json.dumps(shard.facts | {"redrawn": facts})}))
        written += 1
        told(
            f"{shard.sequence}: {len(tensors['positions'])} frames, acceptance {facts['acceptance']:.2f}, "
            f"mean U/kT {facts['mean_energy'][0]:.2f} before, {facts['mean_energy'][1]:.2f} now"
        )
    return written


def _drawn(shard: Shard, flow: Internal, frames: int, seed: int, compiled: bool) -> tuple[dict, dict[str, Any]]:
    began, every = time.monotonic(), 4
    temperature = shard.facts["recipe"]["temperature"]
    peptide = Peptide.of(shard.molecule, temperature, compiled=compiled, whitening=shard.whitening)
    rng = torch.Generator().manual_seed(seed)
    steps = BURN + frames * every
    proposal = bound(flow, peptide)
    assert isinstance(proposal, InternalProposal)
    kernel = Annealed(peptide.potential, FactoredInternal(proposal), STAGES, width=steps)
    pick = torch.randint(len(shard.positions), (CHAINS,), generator=rng)
    kept, accepted = [], 0.0
    for number, (state, info) in enumerate(run(kernel, kernel.init(State.at(shard.positions[pick])), steps, rng), 1):
        accepted += float(info["accepted"].float().mean()) / steps
        if number > BURN and (number - BURN) % every == 0:
            kept.append(state.state.positions)
    positions = torch.cat(kept)
    energies = [float(peptide.potential(x).mean()) for x in (shard.positions, positions)]
    facts = {"acceptance": accepted, "mean_energy": energies, "chains": CHAINS, "burn": BURN, "stages": STAGES}
    tensors = arrays(positions, peptide, rng)
    blocks = [proposal.torsions(OWN // 4, rng)[0] for _ in range(4)]
    tensors["drawn.torsions"] = torch.cat(blocks)
    tensors["drawn.free"] = torch.cat([marginal(peptide, block, rng).free for block in blocks])
    return tensors, facts | {"seconds": time.monotonic() - began}
