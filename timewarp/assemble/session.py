"""One run of training in one process: its shards, its steps, its validations and its files."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from timewarp.analysis.curves import plot_training
from timewarp.assemble.acceptance import measured
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.frames import Frames, Minibatch
from timewarp.assemble.judges import Judges
from timewarp.assemble.pairs import PairBatch, Pairs
from timewarp.assemble.pool import Pool
from timewarp.assemble.training import Training
from timewarp.claim import compare
from timewarp.flow.cartesian import Cartesian
from timewarp.flow.internal import Internal, InternalConfig
from timewarp.flow.losses import Own
from timewarp.kernel import Proposal
from timewarp.settings import Progress, Report, SettingsError, Stop
from timewarp.state import State
from timewarp.training.checkpoint import Checkpoint
from timewarp.training.fit import Fit, fit
from timewarp.training.metrics import Metrics
from timewarp.training.processes import Processes

COLUMNS = [
    *("step", "seconds", "peptides", "loss", "torsion", "rest", "transition", "spread", "log_ratio", "entropy"),
    *("norm", "rate", "skipped", "validation"),
]
MOST = 12  # held-out peptides that are measured in one validation


class Session:
    """One call of `timewarp train` in one process; calling it trains.

    Args:
        run: what is asked for.
        processes: that train together.
        progress: told the share that is done, and a few words.
        stop: whether to finish the step, save and return.
    """

    def __init__(self, run: Training, processes: Processes, progress: Progress, stop: Stop):
        self.run, self.processes, self.progress, self.asked = run, processes, progress, stop
        self.began = time.monotonic()
        internal = isinstance(run.model, InternalConfig)
        self.reads: type[Frames | Pairs] = Frames if internal else Pairs
        self.batches: type[Minibatch | PairBatch] = Minibatch if internal else PairBatch
        with torch.random.fork_rng(devices=[]):  # nn.Module takes no generator
            torch.manual_seed(run.seed)
            flow = Internal(run.model) if isinstance(run.model, InternalConfig) else Cartesian(run.model)
        if run.start is not None:
            flow.load_state_dict(load_flow(Checkpoint.load(run.start)).state_dict())
        self.flow = flow.to(processes.device)
        self.state = Fit(self.flow, run.objective, run.fit, run.seed, processes)
        self.pool = Pool(run.data, self._read, run.validation, run.seed)
        self.judges = Judges(self.pool.path, processes.device)
        self.proposals: dict[str, Proposal] = {}  # the flow in training, bound
        self.metrics = Metrics(run.out / "metrics.csv", COLUMNS)
        self.last: dict[str, Any] = {}
        self.spent = self.reserve = 0.0  # seconds: of earlier calls; of one validation

    def __call__(self) -> Report:
        self._resume()
        if self.processes.first:
            self.metrics.cut(self.state.step)
        frames = sum(len(f) for f in self.pool.trained.values())
        self.progress(0.0, f"{len(self.pool.trained)} training peptides, {frames} frames, from step {self.state.step}")
        steps, first = self.run.steps, self.state.step
        fit(
            self.state, self._batch, self._report, self._save, steps=steps, stop=self._over,
            save_every=self.run.save_every,
        )  # fmt: skip
        measured_now = self.last.get("step") == self.state.step and "validation" in self.last
        if self.processes.first and not measured_now and not self.asked():
            self._record({"step": self.state.step, "peptides": len(self.pool.trained), **self._validated()})
            self._save(self.state)
        if self.processes.first:
            plot_training(self.metrics.rows(), self.run.out / "metrics.png")
        return self._finished(first)

    def _read(self, path: Path) -> Frames | Pairs:
        return self.reads.read(path, self.processes.device)

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _over(self) -> bool:
        late = self.run.seconds is not None and self._seconds() + self.reserve > self.run.seconds
        return late or self.asked()

    def _resume(self) -> None:
        saved = self.run.out / "state.safetensors"
        if not saved.exists():
            return self._take_up()
        with safe_open(saved, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("run", "{}"))
        if "identity" in facts:
            compare(self.run.out, facts["identity"], self.run.identity())
        self.state.restore(load_file(saved))
        self.spent = facts.get("seconds", 0.0)
        if "trained" in facts:
            self.pool.restore(facts["trained"], facts["held"])
        else:
            self._take_up()
        return None

    def _take_up(self) -> None:
        """Take up new shards, the same in every process."""
        self.pool.take_up(self.processes.told(self.pool.waiting()))
        if not self.pool.trained:
            raise SettingsError(
                f"expected shards (NAME.safetensors) in {self.run.data}, found none to train on; "
                "make some with timewarp data"
            )

    def _batch(self, step: int, rng: torch.Generator) -> Minibatch | PairBatch:
        run, count = self.run, self.processes.count
        pool = list(self.pool.trained.values())
        molecules = min(run.molecules, len(pool))
        each = -(-run.molecules * run.frames // (molecules * count))  # frames of a molecule in one process
        batch = self.batches.draw(pool, molecules, each * count, rng, (self.processes.rank, count))
        if step >= run.own_from and (run.objective.acceptance or run.objective.entropy):
            batch = batch.judged([self._own(rng)])
        return batch

    def _own(self, rng: torch.Generator) -> Own:
        """A training peptide, another in each process, with starts of own samples."""
        names, count = list(self.pool.trained), self.processes.count
        name = names[torch.randint(len(names), (count,), generator=rng)[self.processes.rank]]
        seed = int(torch.randint(2**62, (), generator=rng)) + self.processes.rank
        judge = self.judges(name)
        if name not in self.proposals:
            self.proposals[name] = bound(self.flow, judge.peptide, warm=False)
        proposal, device = self.proposals[name], judge.frames.device
        local = torch.Generator(device).manual_seed(seed)
        pick = torch.randint(len(judge.frames), (self.run.own_samples,), generator=local, device=device)
        return Own(proposal, judge.peptide.potential, State.at(judge.frames[pick], proposal.channels, local))

    def _report(self, step: int, metrics: dict[str, float]) -> None:
        row: dict[str, Any] = {"step": step, "peptides": len(self.pool.trained), **metrics}
        # not at an end between reports, which a run that is not stopped there does not have
        if step % self.run.fit.report == 0 and step % self.run.validate < self.run.fit.report:
            row |= self._validated()
            self._take_up()
        self._record(row)
        share = max(step / self.run.steps if self.run.steps else 0.0, self._seconds() / (self.run.seconds or 1e30))
        shown = [f"{k} {row[k]:.4g}" for k in ("loss", "norm", "validation") if k in row]
        self.progress(min(share, 1.0), " ".join([f"step {step}", *shown]))

    def _record(self, row: dict[str, Any]) -> None:
        self.last = {**row, "seconds": round(self.spent + self._seconds(), 1), "skipped": self.state.skipped}
        if self.processes.first:
            self.metrics.add(self.last)

    def _validated(self) -> dict[str, Any]:
        """Mean acceptance of the averaged weights over the held-out peptides that have shards, and of each of them."""
        if not self.processes.first:
            return {}
        began = self._seconds()
        found = {}
        for name in self.pool.measurable()[:MOST]:
            judge = self.judges(name)
            rng = torch.Generator(judge.frames.device).manual_seed(0)
            pick = torch.randperm(len(judge.frames), generator=rng, device=rng.device)[: self.run.measure]
            proposal = bound(cast(Internal | Cartesian, self.state.averaged), judge.peptide, warm=False)
            found[name] = measured(proposal, judge.peptide.potential, judge.frames[pick], rng)
        self.reserve = self._seconds() - began
        return {"validation": sum(found.values()) / len(found), "each": found} if found else {}

    def _save(self, state: Fit) -> None:
        if not self.processes.first:
            return
        run, pool = self.run, self.pool
        facts = {"identity": run.identity(), "seconds": self.spent + self._seconds()}
        facts |= {"trained": list(pool.trained), "held": pool.held}
        half = run.out / ".state.tmp"
        save_file(state.tensors(), half, metadata={"run": json.dumps(facts)})
        half.replace(run.out / "state.safetensors")
        card = {
            "kind": run.kind,
            "config": asdict(run.model),
            "units": "nm, kT",
            "steps": state.step,
            "metrics": self.last,
            "data": {"peptides": sorted(pool.trained), "held_out": pool.held},
            "settings": {
                **asdict(run.fit), **asdict(run.objective), "molecules": run.molecules, "frames": run.frames,
                "own_from": run.own_from, "own_samples": run.own_samples, "seed": run.seed,
            },
        }  # fmt: skip
        Checkpoint(state.averaged.state_dict(), card).save(run.out / run.name)

    def _finished(self, first: int) -> Report:
        validation = self.last.get("validation")
        measure = f"; acceptance {100 * validation:.2g} % on held-out peptides" if validation is not None else ""
        return {
            "steps": self.state.step,
            "seconds": self._seconds(),
            "peptides": len(self.pool.trained),
            "held_out": self.pool.held,
            "metrics": self.last,
            "message": f"{self.state.step - first} steps in {self._seconds():.0f} s, {self.state.step} in all, "
            f"on {len(self.pool.trained)} peptides{measure}; the checkpoint is {self.run.out / self.run.name}.json",
        }
