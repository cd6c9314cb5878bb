"""Adaptation: a flow that knows many molecules learns one, from a torsion walk and from its own samples.

The walk gives thermal configurations of states that the flow may not know. Then the flow trains on two pools:

- thermal: chains that began in the walk and go on by independence Metropolis with the flow's own draws,
- own: the flow's last draws.

| symbol | variable |
|---|---|
| ln integral of mu(tau, z) over z | free |
| -ln p over thermal configurations, which covers every state | likelihood |
| Var(free - ln p(tau)) / 2 over both pools (log-variance divergence; Richter et al. 2020) | spread |

Over own samples the gradient of the latter is that of the reverse divergence of the torsions, taken with the mean
cost of the others for a baseline; over thermal ones it says by how much a density is wrong, and vanishes where it is
right, which that of the likelihood of a few frames does not.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, cast

import torch
from torch import Tensor, nn

from timewarp.assemble.acceptance import acceptance
from timewarp.assemble.conformations import Conformations, drawn, exchanged
from timewarp.assemble.flows import bound
from timewarp.assemble.peptide import Peptide
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import Internal, InternalProposal
from timewarp.mcmc import Annealed
from timewarp.mcmc.accept import metropolis
from timewarp.settings import Progress, Stop
from timewarp.training.fit import Fit, FitConfig


@dataclass(frozen=True)
class AdaptationConfig:
    """How to adapt.

    Attributes:
        walk: share of the time that the torsion walk gets.
        walkers: of it; one in eight is kept for measuring alone.
        kept: configurations of each walker, at most.
        batch: thermal configurations in a step.
        own: of the flow's own samples in a step.
        draws: of the flow at once.
        every: steps between these draws.
        remembered: own samples.
        likelihood: weight of that term.
        spread: weight of that term.
        bound: ln w further than this from the middle counts linearly.
        measures: of the acceptance, on the way.
        stages: by which a proposal relaxes when the acceptance is measured, as in sampling.
        fit: how the weights are trained; the learning rate falls to the end of the time.
    """

    walk: float = 0.2
    walkers: int = 128
    kept: int = 16
    batch: int = 64
    own: int = 64
    draws: int = 64
    every: int = 4
    remembered: int = 512
    likelihood: float = 0.2
    spread: float = 1.0
    bound: float = 3.0
    measures: int = 6
    stages: int = 0
    fit: FitConfig = field(default_factory=lambda: FitConfig(learning_rate=1e-4, warm_up=20, ema=100, weight_decay=0.0))


@dataclass(frozen=True)
class Adapted:
    """A flow, and how it became what it is.

    Attributes:
        flow: the best of those that were measured, or the parent where that is no worse.
        thermal: configurations from which chains may start.
        before: acceptance of the parent.
        after: of the flow.
        trace: measurements: seconds, steps, acceptance.
        steps: of the optimizer.
        seconds: that it took.
    """

    flow: Internal
    thermal: Conformations
    before: float
    after: float
    trace: list[dict[str, Any]]
    steps: int
    seconds: float


class Adaptation:
    """One adaptation; calling it adapts.

    Args:
        peptide: to adapt to.
        parent: the flow to begin with, left as it is.
        seconds: wall clock.
        config: how.
        seed: of everything random.
        progress: told the share that is done, and a few words.
        stop: whether to stop early with what was learned.
    """

    def __init__(
        self, peptide: Peptide, parent: Internal, seconds: float, config: AdaptationConfig, seed: int,
        progress: Progress, stop: Stop,
    ):  # fmt: skip
        self.peptide, self.seconds, self.config, self.progress, self.stop = peptide, seconds, config, progress, stop
        self.began = time.monotonic()
        model = copy.deepcopy(parent).requires_grad_(True)
        self.fit = Fit(model, self._loss, config.fit, seed)
        self.rng = torch.Generator().manual_seed(seed)
        self.averaged = cast(Internal, self.fit.averaged)
        self.proposal = cast(InternalProposal, bound(model, peptide, warm=False))
        self.judged = FactoredInternal(cast(InternalProposal, bound(self.averaged, peptide, warm=False)))
        self.trace: list[dict[str, Any]] = []
        self.parent = copy.deepcopy(parent.state_dict())
        self.best: dict[str, Tensor] | None = None  # of the weights that were measured on the way

    def __call__(self) -> Adapted:
        config = self.config
        walked, walkers = self._walk()
        held = torch.arange(len(walked)) % walkers < max(1, walkers // 8)
        self.pool = Conformations.of(self.proposal, self.peptide, walked[~held], self.rng)
        self.held = walked[held]
        self._measure()
        self.own, _ = drawn(self.proposal, self.peptide, config.draws, self.rng)
        first = time.monotonic()
        due = [self._share() + (1 - self._share()) * (k + 1) / config.measures for k in range(config.measures - 1)]
        while not self.stop() and (not self.fit.step or self._share() < 1 - 4 * self.cost / self.seconds):
            if self.fit.step % config.every == 0:
                self._refresh()
            self.fit.advance(None)
            if self.fit.step in (10, 50) or self.fit.step % 100 == 0:
                left = self.began + self.seconds - time.monotonic()
                ahead = left * self.fit.step / (time.monotonic() - first)
                self.fit.renewed(horizon=max(1, round(self.fit.step + ahead)))
            if due and self._share() > due[0]:
                due.pop(0)
                self._measure()
            self._tell("learning")
        if self.fit.step:
            self._measure()
        before, after = self._compared()
        seconds = time.monotonic() - self.began
        return Adapted(self.averaged.eval(), self.pool, before, after, self.trace, self.fit.step, seconds)

    def _compared(self) -> tuple[float, float]:
        """The acceptance of the parent and of the best, which become one where that is no better."""
        if self.best is None:
            self.averaged.load_state_dict(self.parent)
            return self.trace[0]["acceptance"], self.trace[0]["acceptance"]
        self.averaged.load_state_dict(self.parent)
        before = self._rate()  # anew, on chains that have come as far as those of the best
        self.averaged.load_state_dict(self.best)
        after = self._rate()
        if after > before:
            return before, after
        self.averaged.load_state_dict(self.parent)
        return before, before

    def _share(self) -> float:
        return (time.monotonic() - self.began) / self.seconds

    def _tell(self, what: str) -> None:
        rates = [f"{row['acceptance']:.1%}" for row in self.trace]
        said = f", acceptance {rates[0]}, now {rates[-1]}" if rates else ""
        self.progress(min(1.0, self._share()), what + said)

    def _walk(self) -> tuple[Tensor, int]:
        """Positions of walkers that cooled from ten times the temperature, [kept * walkers, atoms, 3]; their number."""
        config, chart = self.config, self.peptide.chart
        if not chart.torsions:
            count = max(2, config.walkers)
            noise = torch.randn(count, chart.stiffs, generator=self.rng)
            return chart.inverse(torch.zeros(count, 0), noise)[0], count
        walk = self.peptide.walk()
        state = walk.begin(config.walkers, self.rng)
        kept: list[Tensor] = []
        while not kept or (self._share() < config.walk and not self.stop()):
            share = self._share() / config.walk  # of the walk's own time
            ramp = max(0.0, 1 - share / 0.4)
            state, _ = walk.heated(1 + 9 * ramp * ramp).step(state, self.rng)
            if share >= 0.5 + 0.5 * len(kept) / config.kept or self.stop():
                kept.append(state.positions)
            self._tell("walking")
        return torch.cat(kept), config.walkers

    def _measure(self) -> None:
        """Note the acceptance of the averaged weights; of those that have learned, the best are kept."""
        began = time.monotonic()
        rate = self._rate()
        learned = [row["acceptance"] for row in self.trace[1:]]
        if self.trace and rate > max(learned, default=0.0):
            self.best = copy.deepcopy(self.averaged.state_dict())
        self.cost = time.monotonic() - began
        self.trace.append({"seconds": round(began - self.began, 2), "steps": self.fit.step, "acceptance": rate})

    @torch.no_grad()
    def _rate(self) -> float:
        """The acceptance of the averaged weights on held-out chains, which go on meanwhile."""
        path = Annealed(self.peptide.potential, self.judged, self.config.stages)
        new, _, fresh = path.forward(self.judged.draw(len(self.held), self.rng), self.rng)
        old = path.backward(*self.judged.given(self.held), self.rng)
        fresh, old = (w.nan_to_num(-torch.inf, -torch.inf, -torch.inf) for w in (fresh, old))
        rate = acceptance(fresh, old)
        zero = torch.zeros_like(old)
        accepted = metropolis(zero, zero, torch.where(fresh.isfinite(), fresh - old, fresh), self.rng)
        self.held = torch.where(accepted[:, None, None], new, self.held)
        return rate if isfinite(rate) else 0.0

    @torch.no_grad()
    def _refresh(self) -> None:
        """New own samples, each of which is proposed to one thermal chain."""
        new, fresh = drawn(self.proposal, self.peptide, min(self.config.draws, len(self.pool)), self.rng)
        pick = torch.randperm(len(self.pool), generator=self.rng)[: len(new)]
        exchanged(self.pool, pick, self._weight(self.pool[pick], self.proposal.flow), new, fresh, self.rng)
        self.own = self.own.joined(new[fresh.isfinite()])[-self.config.remembered :]

    def _weight(self, conformations: Conformations, flow: Internal) -> Tensor:
        return conformations.log_weight(conformations.log_prob(flow, self.proposal))

    def _loss(self, model: nn.Module, batch: Any, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        thermal = self.pool[torch.randint(len(self.pool), (config.batch,), generator=rng)]
        both = thermal.joined(self.own[torch.randint(len(self.own), (config.own,), generator=rng)])
        torsion = both.log_prob(cast(Internal, model), self.proposal)
        likelihood = -torsion[: config.batch].mean()
        gap = both.free - torsion
        halves = gap.detach().split((config.batch, config.own))
        middle = torch.stack([half.median() for half in halves]).mean()
        spread = nn.functional.huber_loss(gap, middle.expand_as(gap), delta=config.bound)
        loss = config.likelihood * likelihood + config.spread * spread
        return loss, {"likelihood": float(likelihood.detach()), "spread": float(spread.detach())}
