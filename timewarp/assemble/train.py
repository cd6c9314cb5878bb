"""`timewarp train`: a transferable flow from shards of many peptides."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from timewarp.assemble.directory import claimed
from timewarp.assemble.session import Session
from timewarp.assemble.training import Training
from timewarp.flow.cartesian import CartesianConfig
from timewarp.flow.internal import InternalConfig
from timewarp.flow.losses import Objective
from timewarp.flow.tokens import FEATURES
from timewarp.resources import checkpoint_path
from timewarp.settings import Chart, Progress, Report, Stop, TrainSettings
from timewarp.training.fit import FitConfig
from timewarp.training.processes import Processes


def train(settings: TrainSettings, progress: Progress, stop: Stop) -> Report:
    """Train a flow on a directory of shards, alone or with the other processes that torchrun started.

    Raises:
        SettingsError: if there is nothing to train on.
        DirectoryRefused: if `out` cannot serve.
    """
    if settings.chart is Chart.CARTESIAN:
        model: InternalConfig | CartesianConfig = CartesianConfig(FEATURES, settings.velocities or 3)
    else:
        model = InternalConfig(velocities=settings.velocities or 0)
    molecules = min(settings.molecules, settings.batch)
    run = Training(
        data=settings.data,
        out=settings.out,
        name=settings.name,
        validation=settings.validation,
        molecules=molecules,
        frames=-(-settings.batch // molecules),
        steps=settings.steps,
        seconds=settings.seconds,
        seed=settings.seed,
        model=model,
        fit=FitConfig(learning_rate=settings.learning_rate, horizon=settings.horizon),
        objective=Objective(settings.likelihood, settings.acceptance, settings.entropy, settings.spread),
        own_from=settings.own_from,
        start=checkpoint_path(settings.start).with_suffix("") if settings.start else None,
        device=settings.device.resolve(),
    )
    return trained(run, progress, stop, settings.resume)


def trained(
    run: Training, progress: Progress = lambda *_: None, stop: Stop = lambda: False, resume: bool = True
) -> Report:
    """Train, going on from the state in `run.out` where there is one and `resume` is set."""
    if run.device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    with Processes.joined(run.device) as processes:
        claim = claimed(run.out, ("metrics.csv",), resume) if processes.first else nullcontext()
        with claim:
            processes.any(False)  # nobody goes on before the first process has the directory
            return Session(run, processes, progress, stop)()
