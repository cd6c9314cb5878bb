"""`timewarp train`: a transferable flow from shards of many peptides."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from timewarp.assemble.acceptance import acceptance, log_weights
from timewarp.assemble.flows import bound
from timewarp.assemble.frames import Frames, Minibatch
from timewarp.assemble.generate import Shard
from timewarp.assemble.peptide import Peptide
from timewarp.flow.internal import Internal, InternalConfig
from timewarp.flow.losses import likelihood
from timewarp.training.checkpoint import Checkpoint
from timewarp.training.fit import Fit, FitConfig, fit


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        data: directory of shards; those that arrive during the run are taken up at each validation.
        out: directory of the run: `state.safetensors` (to go on from), `metrics.csv`, NAME.json, NAME.safetensors.
        name: of the checkpoint.
        validation: peptides of the training set that are held out.
        molecules: peptides in a minibatch.
        frames: of each of them.
        validate: steps between validations.
        steps: in all; None for no limit.
        seconds: from now; None for no limit.
        seed: of the initial weights and the minibatches.
        model: sizes of the networks.
        fit: how the weights are trained.
    """

    data: Path
    out: Path
    name: str = "2aa"
    validation: tuple[str, ...] = ()
    molecules: int = 8
    frames: int = 32
    validate: int = 500
    steps: int | None = None
    seconds: float | None = None
    seed: int = 0
    model: InternalConfig = InternalConfig()
    fit: FitConfig = FitConfig()


def train(
    run: Training, told: Callable[[str], None] = lambda _: None, stop: Callable[[], bool] = lambda: False
) -> dict:
    """Train, resuming from `run.out` where it holds a state; returns the last metrics.

    Raises:
        ValueError: if the directory of shards holds nothing to train on.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(run.seed)  # of the initial weights alone: nn.Module takes no generator
    state = Fit(Internal(run.model), likelihood, run.fit, run.seed)
    saved = run.out / "state.safetensors"
    if saved.exists():
        state.restore(load_file(saved))
        told(f"resumed at step {state.step}")
    pool: dict[str, Frames] = {}
    take_up(run, pool)
    names = [n for n in pool if n not in run.validation]
    if not names:
        raise ValueError(f"expected shards (NAME.safetensors) in {run.data}, found none to train on; run timewarp data")
    told(f"{len(names)} training peptides, {sum(len(pool[n]) for n in names)} frames")
    trained: list[Frames] = [pool[n] for n in names]
    last: dict = {}
    began = time.monotonic()

    def batch(step, rng):
        return Minibatch.draw(trained, run.molecules, run.frames, rng)

    def report(step, metrics):
        nonlocal last
        row = {"step": step, "seconds": round(time.monotonic() - began, 1), "peptides": len(trained), **metrics}
        if step % run.validate < run.fit.report:
            row["validation"] = validate(run, state, told)
            if take_up(run, pool):
                trained[:] = [pool[n] for n in sorted(pool) if n not in run.validation]
        last = row
        _append(run.out / "metrics.csv", row)
        told(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))

    def save(state):
        half = run.out / ".state.tmp"
        save_file(state.tensors(), half)
        half.replace(saved)
        card = {
            "kind": "internal",
            "config": asdict(run.model),
            "units": "nm, kT",
            "steps": state.step,
            "metrics": last,
            "data": {"peptides": sorted(n for n in pool if n not in run.validation), "held_out": list(run.validation)},
            "settings": {**asdict(run.fit), "molecules": run.molecules, "frames": run.frames, "seed": run.seed},
        }
        Checkpoint(state.averaged.state_dict(), card).save(run.out / run.name)

    fit(state, batch, report, save, steps=run.steps, seconds=run.seconds, stop=stop)
    return last


def take_up(run: Training, pool: dict[str, Frames]) -> int:
    """Read the shards that are not in the pool yet; returns how many."""
    new = 0
    for path in sorted(run.data.glob("*.safetensors")):
        if path.stem not in pool and path.stem not in run.validation:
            pool[path.stem] = Frames.read(path)
            new += 1
    return new


def validate(run: Training, state: Fit, told: Callable[[str], None], count: int = 256) -> float:
    """Mean acceptance of the averaged weights over the held-out peptides that have shards."""
    rng = torch.Generator().manual_seed(0)
    found = []
    for name in run.validation:
        path = run.data / f"{name}.safetensors"
        if path.exists():
            found.append((name, measured(state.averaged, Shard.read(path), count, rng)))
    told("validation " + " ".join(f"{n} {a:.3f}" for n, a in found))
    return sum(a for _, a in found) / max(1, len(found))


def measured(model: Internal, shard: Shard, count: int, rng: torch.Generator) -> float:
    """Acceptance of a flow on the frames of a shard."""
    temperature = shard.facts["recipe"]["temperature"]
    peptide = Peptide.of(shard.molecule, temperature, whitening=shard.whitening)
    proposal = bound(model, peptide)
    pick = torch.randperm(len(shard.positions), generator=rng)[:count]
    return acceptance(*log_weights(proposal, peptide.potential, shard.positions[pick], count, rng))


def _append(path: Path, row: dict) -> None:
    columns = ["step", "seconds", "peptides", "loss", "torsion", "stiff", "norm", "rate", "validation"]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(row)
