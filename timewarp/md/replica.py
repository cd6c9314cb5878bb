"""Replica exchange with flow moves at every temperature of the ladder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openmm import app

from timewarp.kernel import Kernel
from timewarp.md.faults import InputError
from timewarp.md.sampler import TimewarpSampler


class TimewarpReplicaExchangeSampler(app.ReplicaExchangeSampler):
    """OpenMM's `ReplicaExchangeSampler`, in which each replica makes a flow move after its steps of dynamics.

    The flow is told the temperature of the replica's state. It was trained at one temperature, and may propose worse
    at others; Metropolis-Hastings makes the move exact at all of them. A move leaves the density of the replica's own
    state invariant, so that the product over replicas is too, and exchanges are what they were.

    Args:
        states, simulation, stepsPerIteration, reinitializeVelocities: as those of `ReplicaExchangeSampler`; states may
            differ by their temperature and by parameters of the Context.
        checkpoint, seed, proposals, kernel: as those of `TimewarpSampler`.

    Attributes:
        sampler: makes the moves.
        proposed, accepted: proposals so far, for each state.

    Raises:
        InputError: one line, if the flow cannot move this Simulation.
    """

    def __init__(
        self,
        states: list[dict],
        simulation: app.Simulation,
        stepsPerIteration: int,
        reinitializeVelocities: bool = False,
        checkpoint: str | Path | None = None,
        seed: int | None = None,
        *,
        proposals: int = 10,
        kernel: Callable[[float], Kernel] | None = None,
    ):
        if any("groups" in state for state in states):
            raise InputError(
                "expected states that differ by temperature or by parameters of the Context, found force groups, which "
                "the moves do not tell apart; scale the forces by a parameter of the Context"
            )
        super().__init__(states, simulation, stepsPerIteration, reinitializeVelocities)
        self._sampler.applyState(0)  # the kernel of the first state is made first
        self.sampler = TimewarpSampler(
            simulation, checkpoint, stepsPerIteration, seed, proposals=proposals, kernel=kernel
        )
        self.proposed, self.accepted = [0] * len(states), [0] * len(states)

    def simulateReplica(self, index: int, steps: int | None = None) -> None:
        """Dynamics of one replica, then one move at the temperature of its state."""
        super().simulateReplica(index, steps)
        state = self.replicaStateIndex[index]
        self.proposed[state] += self.sampler.proposals
        self.accepted[state] += self.sampler.move()
        context: Any = self.simulation.context
        self.replicaConformation[index] = context.getState(
            positions=True, velocities=True, parameters=True, integratorParameters=True
        )
