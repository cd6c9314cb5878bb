"""The training loop: gradient clipping, warm-up, EMA, validation, exact resume, a clean stop on a time budget."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from timewarp.training.processes import Processes


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Attributes:
        learning_rate: of AdamW, after the warm-up.
        warm_up: steps.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, in steps (1 - 1/ema).
        weight_decay: of AdamW.
        report: steps between reports.
        horizon: steps over which the learning rate falls to a twentieth along a cosine; 0 keeps it.
    """

    learning_rate: float = 1e-3
    warm_up: int = 200
    clip: float = 1.0
    ema: float = 500.0
    weight_decay: float = 0.05
    report: int = 50
    horizon: int = 0

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        rise = min(1.0, (step + 1) / max(1, self.warm_up))
        if not self.horizon:
            return self.learning_rate * rise
        fall = 0.05 + 0.95 * 0.5 * (1 + cos(pi * min(1.0, step / self.horizon)))
        return self.learning_rate * rise * fall


Batch = Any
Loss = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, float]]]
ALONE = Processes()


class Fit:
    """A model in training.

    Args:
        model: trained in place; `averaged` is its EMA.
        loss: (model, batch, rng) -> (scalar, metrics).
        config: how.
        seed: of everything random in training.
        processes: that train together; the model is at first the same in all of them.

    Attributes:
        rng: the same in every process, for what they decide together; a loss gets one of its own in each.
    """

    def __init__(self, model: nn.Module, loss: Loss, config: FitConfig, seed: int = 0, processes: Processes = ALONE):
        self.model, self.loss, self.config, self.processes = model, loss, config, processes
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.step = 0
        self.skipped = 0
        self.rng = torch.Generator().manual_seed(seed)

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step of the optimizer; a loss or gradient that is not finite is skipped and counted."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss, metrics = self.loss(self.model, batch, self._own_rng())
        loss.backward()
        loss, metrics = self._gathered(loss.detach(), metrics)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if loss.isfinite() and norm.isfinite():
            self.optimizer.step()
            self._average()
        else:
            self.skipped += 1
        self.step += 1
        return metrics | {"loss": float(loss), "norm": float(norm), "rate": self.config.rate(self.step)}

    def _own_rng(self) -> torch.Generator:
        seed = int(torch.randint(2**62, (), generator=self.rng)) + self.processes.rank
        return torch.Generator(next(self.model.parameters()).device).manual_seed(seed)

    @torch.no_grad()
    def _gathered(self, loss: Tensor, metrics: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
        """Loss, metrics and gradients as means over the processes, so that all take the same step."""
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.processes.count == 1:
            return loss, metrics
        values = torch.stack([loss, *(loss.new_tensor(v) for v in metrics.values())])
        self.processes.mean_([*(p.grad for p in self.model.parameters() if p.grad is not None), values])
        return values[0], dict(zip(metrics, values[1:].tolist(), strict=True))

    @torch.no_grad()
    def _average(self):
        decay = min(1 - 1 / self.config.ema, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `restore` needs to go on exactly: weights, their average, the optimizer and the rng."""
        flat = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        flat |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        names = [n for n, _ in self.model.named_parameters()]
        for name, parameter in zip(names, self.model.parameters(), strict=True):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                flat[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        flat["rng"] = self.rng.get_state()
        flat["step"] = torch.tensor(self.step)
        flat["skipped"] = torch.tensor(self.skipped)
        return {k: v.detach().clone().contiguous() for k, v in flat.items()}

    def restore(self, flat: dict[str, Tensor]) -> None:
        """Go on from `tensors()`."""

        def under(prefix):
            return {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self.averaged.load_state_dict(under("averaged."))
        for name, parameter in self.model.named_parameters():
            state = {
                key: flat[f"optimizer.{key}.{name}"].clone().to("cpu" if key == "step" else parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in flat
            }
            if state:
                self.optimizer.state[parameter] = state
        self.rng.set_state(flat["rng"])
        self.step, self.skipped = int(flat["step"]), int(flat["skipped"])

    def renewed(self, **changes: Any) -> None:
        """Change the configuration for the steps to come."""
        self.config = replace(self.config, **changes)


def fit(
    state: Fit,
    batch: Callable[[int, torch.Generator], Batch],
    told: Callable[[int, dict[str, float]], None],
    save: Callable[[Fit], None],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    save_every: float = 180.0,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train until `steps` in all, `seconds` from now, or `stop`; saves on the way and at the end.

    `told` gets means over the steps since it was last called, at the end over fewer than usual.
    """
    began = saved = time.monotonic()
    since: dict[str, list[float]] = {}
    while steps is None or state.step < steps:
        over = seconds is not None and time.monotonic() - began > seconds
        if state.processes.any(over or stop()):
            break
        for key, value in state.advance(batch(state.step, state.rng)).items():
            since.setdefault(key, []).append(value)
        if state.step % state.config.report == 0:
            told(state.step, means(since))
            since = {}
        if time.monotonic() - saved > save_every:
            save(state)
            saved = time.monotonic()
    if since:
        told(state.step, means(since))
    save(state)


def means(since: dict[str, list[float]]) -> dict[str, float]:
    """The mean of each metric over the steps that gave it."""
    return {key: sum(values) / len(values) for key, values in since.items()}
