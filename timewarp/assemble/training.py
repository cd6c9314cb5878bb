"""What one training run is asked for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timewarp.flow.cartesian import CartesianConfig
from timewarp.flow.internal import InternalConfig
from timewarp.flow.losses import Objective
from timewarp.training.fit import FitConfig


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        data: directory of shards; those that arrive during the run are taken up at each validation.
        out: directory of the run: `state.safetensors` (to go on from), `metrics.csv`, NAME.json, NAME.safetensors.
        name: of the checkpoint.
        validation: peptides of the training set that are held out; a tenth where none are named.
        molecules: peptides in a minibatch.
        frames: of each of them.
        validate: steps between validations.
        measure: frames and draws in the validation of one peptide.
        steps: in all; None for no limit.
        seconds: from now; None for no limit.
        seed: of the initial weights, the minibatches and what is held out.
        model: sizes of the networks; its kind is the chart.
        fit: how the weights are trained.
        objective: weights of the terms of the loss.
        own_from: step from which the terms on own samples count.
        own_samples: of one peptide, in a step.
        start: checkpoint (without suffix) whose weights a new run begins with.
        device: where to compute.
        save_every: seconds between saves.
    """

    data: Path
    out: Path
    name: str = "2aa"
    validation: tuple[str, ...] = ()
    molecules: int = 16
    frames: int = 32
    validate: int = 500
    measure: int = 256
    steps: int | None = None
    seconds: float | None = None
    seed: int = 0
    model: InternalConfig | CartesianConfig = field(default_factory=InternalConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    objective: Objective = field(default_factory=Objective)
    own_from: int = 0
    own_samples: int = 64
    start: Path | None = None
    device: str = "cpu"
    save_every: float = 180.0

    @property
    def kind(self) -> str:
        """Of the checkpoint."""
        return "cartesian" if isinstance(self.model, CartesianConfig) else "internal"

    def identity(self) -> dict[str, Any]:
        """What a run that goes on has to share with the one that was stopped."""
        own = {"chart": self.kind, **asdict(self.model), "seed": self.seed, "validation": self.validation}
        return json.loads(json.dumps(own))
