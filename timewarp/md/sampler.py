"""Flow moves inside somebody's own OpenMM Simulation: `TimewarpSampler`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import app, unit

from timewarp.atomic import write_atomically
from timewarp.kernel import Kernel
from timewarp.md.embeddable import require_embeddable
from timewarp.md.faults import InputError
from timewarp.md.gluing import flow_binder, kernel_binder
from timewarp.md.moves import Moves
from timewarp.md.target import Condition, Target, frozen, kelvin, temperature_of
from timewarp.snapshot import Snapshot

KILOJOULE = unit.kilojoule_per_mole
SEEDS = 2**31 - 1


class TimewarpSampler:
    """Dynamics of an `openmm.app.Simulation`, and at every `every`-th of its steps moves of a flow.

        sampler = TimewarpSampler(simulation)
        sampler.step(1_000_000)

    or, once, `sampler.install()`, after which plain `simulation.step()` and `runForClockTime` make the moves too.
    The Simulation's own System, temperature and platform are used. Moves take no time: `currentStep` counts steps of
    the dynamics alone. Reporters are served as always; at a step that both a reporter and a move fall on, the
    trajectory gets the state before the move.

    **Exactness.** The law pi(x) N(v) of positions and velocities stays what it is: a move leaves pi(x) invariant, by
    Metropolis-Hastings, and looks at no velocity; where it changed the positions, velocities are drawn anew from
    N, the Maxwell-Boltzmann law, and otherwise they stay (the proof is in timewarp/md/moves.py). When a move is made
    is told by the count of steps, never by the state. The error of the integrator's finite step is that of the
    dynamics between moves: the moves themselves have none.

    The temperature and the parameters of the Context are read before every move, so that replica exchange, expanded
    ensembles and annealing may change them; the first move at new ones prepares a kernel (some seconds).

    Args:
        simulation: of one peptide of up to ten amino acids, in vacuum or implicit solvent, without constraints, with
            positions in its Context.
        checkpoint: the flow: a name that came with the package or a path; None for the default one.
        every: steps between moves, or a time as an OpenMM quantity.
        seed: of the moves; None for another one each time.
        proposals: how many each move tests, one after another.
        temperature: in K or as a quantity, where the integrator does not tell it.
        kernel: gives, for a temperature in K, the kernel to use in place of the flow's: one of timewarp.mcmc, of the
            energy that the Simulation has. What the flow can move is then not asked.

    Attributes:
        proposed, accepted: proposals so far.
        notices: how the energy of the moves is computed, where it is not as usual.

    Raises:
        InputError: one line, if the flow cannot move this Simulation.
        PotentialChanged: from a move that finds another energy than the dynamics have.
    """

    def __init__(
        self,
        simulation: app.Simulation,
        checkpoint: str | Path | None = None,
        every: int | unit.Quantity = 1000,
        seed: int | None = None,
        *,
        proposals: int = 10,
        temperature: float | unit.Quantity | None = None,
        kernel: Callable[[float], Kernel] | None = None,
    ):
        self.simulation = simulation
        self.every = _steps(every, simulation)
        self._temperature = None if temperature is None else kelvin(temperature)
        self.rng = torch.Generator()
        if seed is None:
            self.rng.seed()
        else:
            self.rng.manual_seed(seed)
        if kernel is None:
            require_embeddable(simulation.topology, simulation.system)
        self.proposed = self.accepted = 0
        self._moves = Moves(flow_binder(checkpoint) if kernel is None else kernel_binder(kernel), proposals)
        positions, energy = self._present()
        self.notices = self._moves.prepare(self._condition(), lambda: self._target(self._condition())).notices
        self._moves.check(self._condition(), positions, energy)

    @property
    def acceptance(self) -> float:
        """The share of the proposals that were accepted; NaN before the first."""
        return self.accepted / self.proposed if self.proposed else float("nan")

    @property
    def proposals(self) -> int:
        """How many proposals each move tests."""
        return self._moves.proposals

    def step(self, steps: int) -> None:
        """Advance the Simulation by so many steps of dynamics, with the moves that fall into them."""
        own = self not in self.simulation.reporters
        if own:
            self.simulation.reporters.append(self)
        try:
            self.simulation.step(steps)
        finally:
            if own:
                self.simulation.reporters.remove(self)

    def install(self) -> TimewarpSampler:
        """Make plain `simulation.step()` include the moves from now on."""
        if self not in self.simulation.reporters:
            self.simulation.reporters.append(self)
        return self

    def uninstall(self) -> None:
        """Leave the Simulation with its dynamics alone."""
        if self in self.simulation.reporters:
            self.simulation.reporters.remove(self)

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """When the next move is due: how OpenMM asks its reporters."""
        return {"steps": self.every - simulation.currentStep % self.every, "periodic": None, "include": []}

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """Make the move that is due; the other reporters of this step were given the state before it."""
        if simulation.currentStep % self.every == 0:
            self.move()

    def move(self) -> int:
        """Test `proposals` proposals at once; returns how many were accepted."""
        positions, energy = self._present()
        condition, context = self._condition(), self.simulation.context
        self._moves.prepare(condition, lambda: self._target(condition))
        moved, tested, accepted = self._moves(condition, positions, energy, self.rng)
        self.proposed += tested
        self.accepted += accepted
        if moved is not None:
            context.setPositions(moved * unit.nanometer)
            seed = int(torch.randint(1, SEEDS, (), generator=self.rng))
            context.setVelocitiesToTemperature(condition.temperature * unit.kelvin, seed)
        return accepted

    def save(self, file: str | Path) -> None:
        """Write everything that it takes to go on bit for bit: the checkpoint of the Context, and the sampler's state.

        As any OpenMM checkpoint, the file can be read by the same System, platform and version of OpenMM alone.
        """
        flat, conditions = self._moves.tensors()
        raw = io.BytesIO()
        self.simulation.saveCheckpoint(raw)
        flat["openmm"] = torch.frombuffer(bytearray(raw.getvalue()), dtype=torch.uint8)
        meta = {
            "proposed": self.proposed, "accepted": self.accepted, "every": self.every, "proposals": self.proposals,
            "conditions": conditions,
        }  # fmt: skip
        write_atomically(Path(file), Snapshot(flat, self.rng.get_state(), meta).encode())

    def load(self, file: str | Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            InputError: if the file is none of this Simulation's.
        """
        try:
            saved = Snapshot.decode(Path(file).read_bytes())
            flat = dict(saved.tensors)
            raw, meta = io.BytesIO(flat.pop("openmm").numpy().tobytes()), saved.meta
            if meta["every"] != self.every or meta["proposals"] != self.proposals:
                raise ValueError(
                    f"it was saved with every={meta['every']} and proposals={meta['proposals']}, not {self.every} and "
                    f"{self.proposals}"
                )
            self.simulation.loadCheckpoint(raw)
            self._moves.restore(flat, meta["conditions"], self._target)
        except Exception as error:
            raise InputError(f"{file}: expected what the sampler of the same Simulation saved, got {error}") from error
        self.proposed, self.accepted = meta["proposed"], meta["accepted"]
        self.rng.set_state(saved.rng)

    def _condition(self) -> Condition:
        context = self.simulation.context
        return Condition.of(context, self._temperature or temperature_of(context))

    def _groups(self) -> int:
        return self.simulation.integrator.getIntegrationForceGroups()

    def _present(self) -> tuple[np.ndarray, float]:
        state = self.simulation.context.getState(positions=True, energy=True, groups=self._groups())
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        return np.asarray(positions, dtype=np.float64), state.getPotentialEnergy().value_in_unit(KILOJOULE)

    def _target(self, condition: Condition) -> Target:
        simulation = self.simulation
        system = frozen(simulation.system, condition, self._groups())
        platform = simulation.context.getPlatform().getName()
        return Target(simulation.topology, system, condition.temperature, self._present()[0], platform)


def _steps(every: int | unit.Quantity, simulation: app.Simulation) -> int:
    """A number of steps, from itself or from a time."""
    if unit.is_quantity(every):
        step = simulation.integrator.getStepSize()
        every = round(every / step)
    if int(every) != every or every < 1:
        raise InputError(f"expected moves at every 1 or more steps, got every={every}; say every=1000 or 2*picoseconds")
    return int(every)
