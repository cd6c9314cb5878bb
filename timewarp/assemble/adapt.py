"""`timewarp adapt`: a checkpoint that has learned the very peptide that is to be sampled; `sample --adapt` begins so.

What comes out is an ordinary checkpoint, with the chart that it was adapted in. It is frozen before anything is
sampled with it, so that chains stay exact whatever the adaptation did.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from timewarp.assemble.adaptation import Adaptation, AdaptationConfig, Adapted
from timewarp.assemble.directory import claimed
from timewarp.assemble.energy import energy_of
from timewarp.assemble.flows import CHART, load_flow
from timewarp.assemble.fusing import fused
from timewarp.assemble.peptide import Peptide
from timewarp.flow.chart import InternalChart
from timewarp.flow.internal import Internal
from timewarp.resources import checkpoint_path
from timewarp.settings import AdaptSettings, Progress, Report, SettingsError, Stop
from timewarp.state import Molecule
from timewarp.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

NAME = "adapted"  # of the checkpoint in the directory of a run
CONFIG = AdaptationConfig()


def adapt(settings: AdaptSettings, progress: Progress, stop: Stop) -> Report:
    """Adapt a checkpoint to the peptide in `settings.pdb`; with `resume`, the one that an earlier call left.

    Raises:
        SettingsError: if the checkpoint is of a kind that cannot be adapted.
        DirectoryRefused: if `out` cannot serve.
    """
    from timewarp.md.system import prepare

    began = time.monotonic()
    progress(0.0, "reading the structure")
    prepared = prepare(settings.pdb)
    with claimed(settings.out, (f"{NAME}.json",), settings.resume):
        earlier = settings.out / NAME
        again = earlier.with_suffix(".json").exists()
        parent = Checkpoint.load(earlier if again else checkpoint_path(settings.checkpoint).with_suffix(""))
        progress(0.0, "checking the energy against OpenMM")
        energy, molecule, notices = energy_of(prepared, settings.temperature)
        compile_it, told = fused(energy, None, 60 * settings.minutes, progress, stop)
        if compile_it:
            energy.compiled = True  # type: ignore[attr-defined]
        progress(0.0, "preparing the chart")
        whitening = chart_of(parent, prepared, molecule, settings.temperature)
        peptide = Peptide.of(molecule, settings.temperature, potential=energy, whitening=whitening, seed=settings.seed)
        name = parent.card["adaptation"]["parent"] if again else settings.checkpoint
        adapted, checkpoint = adapted_to(
            peptide, prepared, parent, name, settings.minutes, settings.seed, progress, stop
        )
        checkpoint.save(earlier)
    return {
        "peptide": prepared.sequence,
        "atoms": len(prepared.positions),
        "notices": [*prepared.notices, *notices, *told],
        "seconds": time.monotonic() - began,
        "adaptation": checkpoint.card["adaptation"],
        "message": f"{prepared.sequence}: acceptance {adapted.before:.1%} before, {adapted.after:.1%} after "
        f"{adapted.seconds:.0f} s and {adapted.steps} steps; "
        f"timewarp sample {settings.pdb} --checkpoint {earlier}.json uses it",
    }


def adapted_to(
    peptide: Peptide, prepared: Prepared, parent: Checkpoint, name: str, minutes: float, seed: int,
    progress: Progress, stop: Stop, stages: int = 0,
) -> tuple[Adapted, Checkpoint]:  # fmt: skip
    """Adapt for so many minutes; what was learned, and the checkpoint of it.

    Args:
        peptide: to adapt to, on the CPU.
        prepared: the same from its file.
        parent: to begin with.
        name: by which the parent is known.
        minutes: wall clock, the preparation not counted.
        seed: of everything random.
        progress: told the share that is done, and a few words.
        stop: whether to stop early with what was learned.
        stages: by which proposals are to relax in sampling.

    Raises:
        SettingsError: if the parent is not an internal flow without velocities.
    """
    flow = load_flow(parent)
    if not isinstance(flow, Internal) or flow.config.velocities:
        raise SettingsError(
            f"--checkpoint: expected an internal flow without velocities to adapt, got {name}, which is another kind"
        )
    config = replace(CONFIG, stages=stages)
    adapted = Adaptation(peptide, flow, 60 * minutes, config, seed, progress, stop)()
    before = parent.card.get("adaptation", {})
    facts = {
        "parent": name,
        "parent_weights": before.get("parent_weights", digest(parent.tensors)),
        **_of(prepared, peptide.temperature),
        "minutes": before.get("minutes", 0.0) + adapted.seconds / 60,
        "asked_minutes": minutes,
        "seed": seed,
        "steps": adapted.steps,
        "acceptance": {"before": adapted.before, "after": adapted.after},
        "trace": adapted.trace,
    }
    card = {key: parent.card[key] for key in ("kind", "config", "units", "data", "provenance") if key in parent.card}
    card |= {"steps": parent.card.get("steps", 0) + adapted.steps, "metrics": {"acceptance": adapted.after}}
    card |= {"settings": asdict(config), "adaptation": facts}
    chart = {f"{CHART}{key}": value for key, value in peptide.chart.arrays().items()}
    return adapted, Checkpoint({**adapted.flow.state_dict(), **chart}, card)


def chart_of(
    checkpoint: Checkpoint, prepared: Prepared, molecule: Molecule, temperature: float
) -> dict[str, Tensor] | None:
    """The whitening that a checkpoint was adapted in, if it was to this molecule at this temperature."""
    facts = checkpoint.card.get("adaptation", {})
    if any(facts.get(key) != value for key, value in _of(prepared, temperature).items()):
        return None
    arrays = {k.removeprefix(CHART): v for k, v in checkpoint.tensors.items() if k.startswith(CHART)}
    try:
        chart = InternalChart(molecule, whitening=arrays)
    except ValueError:  # of another version
        return None
    turns = chart.dihedrals  # the mirror image has the same potential and other signs here
    away = chart.prepared[chart.stiff][turns] - chart.mean.double()[turns]
    return arrays if bool((torch.cos(away) > 0).all()) else None


def digest(tensors) -> str:
    """A name for some weights: the same if and only if every bit is."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _of(prepared: Prepared, temperature: float) -> dict[str, str | float]:
    from timewarp.md.energy import fingerprint

    return {"peptide": prepared.sequence, "potential": fingerprint(prepared.system), "temperature": temperature}
