"""`timewarp md`: Langevin dynamics of one peptide, from a file to a report."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

from timewarp.assemble import reporting
from timewarp.output import RunDirectory
from timewarp.settings import MDSettings, Progress, Report, Stop
from timewarp.state import State

if TYPE_CHECKING:
    from timewarp.md.reference import LangevinMD, Phase

SAVE_EVERY = 10.0  # s between snapshots


@dataclass
class Tally:
    """What a run has done so far: integration steps a chain, force evaluations of all chains, wall-clock time."""

    step: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    proposed: int = 0  # MD tests no moves
    accepted: int = 0


def md(settings: MDSettings, progress: Progress, stop: Stop) -> Report:
    """Langevin dynamics from the prepared structure, all chains in step; `steps` is rounded up to whole frames.

    Chains start at the prepared structure with velocities of their own, at twice the temperature: half of it goes into
    the potential, which starts near a minimum. When a run was stopped does not show in its trajectory.

    Raises:
        InputError: if the peptide cannot be prepared.
        DirectoryRefused: if `out` cannot serve.
        Unstable: if the integration left the finite numbers; what was saved stays.
    """
    from timewarp.md.reference import LangevinMD
    from timewarp.md.system import prepare

    began = time.monotonic()
    progress(0.0, "reading the structure")
    prepared = prepare(settings.pdb)
    platform, notices = _platform(settings.device.resolve())
    kernel = LangevinMD.of(
        prepared, settings.protocol, settings.temperature, settings.interval, settings.chains, platform
    )
    identity = reporting.identity(settings, prepared, platform=platform)
    with RunDirectory.open(settings.out, identity, settings.resume) as directory:
        if directory.saved:
            rng = directory.saved.generator()
            phase = kernel.restore(dict(directory.saved.tensors))
            tally, start = Tally(**directory.saved.meta["tally"]), directory.saved.meta["start"]
        else:
            reporting.begin(directory, prepared, settings.chains)
            rng = torch.Generator().manual_seed(settings.seed)
            positions = torch.as_tensor(prepared.positions).expand(settings.chains, -1, -1)
            thermal = State.at(positions, 3, rng)
            hot = replace(thermal, velocities=math.sqrt(2) * thermal.velocities)
            phase, tally, start = kernel.init(hot), Tally(), 0
        loop = _Loop(settings, directory, kernel, progress, stop, began - tally.seconds)
        loop.run(phase, tally, rng, start)
        picoseconds = directory.frames * kernel.stride * kernel.integration.step
        speed = 86.4 * settings.chains * picoseconds / tally.seconds
        return reporting.finish(
            settings,
            directory,
            prepared,
            exact=False,
            exactness=_exactness(kernel),
            biased=False,  # of the order of the time step alone: the verdict is on the mixing
            tally=tally,
            notices=[*prepared.notices, *notices],
            protocol=str(settings.protocol),
            platform=platform,
            picoseconds=picoseconds,
            ns_per_day=speed,
            message=f"{settings.chains} x {picoseconds:g} ps, {speed:.3g} ns a day on {platform}",
        )


@dataclass
class _Loop:
    settings: MDSettings
    directory: RunDirectory
    kernel: LangevinMD
    progress: Progress
    stop: Stop
    began: float

    def run(self, phase: Phase, tally: Tally, rng: torch.Generator, start: int) -> None:
        """Integrate until the limit, or until asked to stop; every frame and the end are saved.

        A snapshot holds the phase at which a kernel step starts, after `start` frames. The last step of a run may be
        cut short; resuming does it again, and leaves out the frames that are there.
        """
        steps = self.settings.steps
        target = math.ceil(steps / self.kernel.stride) if steps else 2**62
        saved = time.monotonic()
        self._save(phase, tally, rng, start)
        while self.directory.frames < target and not self._over(tally):
            before = torch.Generator().set_state(rng.get_state())
            count = min(self.kernel.frames, target - start)
            following, frames = replace(self.kernel, frames=count).step(phase, rng)
            tally.evaluations += self.settings.chains * self.kernel.stride * count
            accepted = torch.ones(self.settings.chains)
            for i in range(tally.step // self.kernel.stride - start, count):
                tally.step += self.kernel.stride
                self.directory.append(tally.step, frames["positions"][i], frames["potential"][i], accepted)
            self.directory.flush()
            if count < self.kernel.frames:
                rng = before
            else:
                phase, start = following, start + count
            if time.monotonic() - saved > SAVE_EVERY:
                self._save(phase, tally, rng, start)
                saved = time.monotonic()
            self._tell(tally)
        self._save(phase, tally, rng, start)

    def _over(self, tally: Tally) -> bool:
        limit = self.settings.seconds
        spent = time.monotonic() - self.began
        return self.stop() or (limit is not None and spent > limit and tally.step > 0)

    def _save(self, phase: Phase, tally: Tally, rng: torch.Generator, start: int) -> None:
        tally.seconds = time.monotonic() - self.began
        self.directory.save(phase.tensors(), rng, {"tally": asdict(tally), "start": start})

    def _tell(self, tally: Tally) -> None:
        spent, limit, steps = time.monotonic() - self.began, self.settings.seconds, self.settings.steps
        shares = [tally.step / steps if steps else 0.0, spent / limit if limit else 0.0]
        picoseconds = tally.step * self.kernel.integration.step
        rate = 86.4 * picoseconds * self.settings.chains / spent
        self.progress(min(1.0, max(shares)), f"{picoseconds:g} ps a chain, {rate:.3g} ns/day")


def _platform(device: str) -> tuple[str, list[str]]:
    """The OpenMM platform for a device that torch knows, and a notice where it is not what was asked for."""
    from timewarp.md.platforms import usable

    if device == "cpu":
        return "CPU", []
    for name in ("CUDA", "OpenCL"):
        if name in usable():
            return name, []
    return "CPU", ["no GPU platform of OpenMM works here (pip install openmm[cuda12]), so that MD ran on the CPU"]


def _exactness(kernel: LangevinMD) -> str:
    step = f"{1000 * kernel.integration.step:g} fs"
    rigid = " and holds bonds to hydrogen rigid" if kernel.integration.rigid else ""
    return (
        f"Not exact: Langevin dynamics integrates with a finite time step ({step}){rigid}, which shifts averages a "
        "little from those of the Boltzmann distribution, and no Metropolis-Hastings test corrects it. The chains "
        "start at the prepared structure, and nothing was cut off at their beginning."
    )
