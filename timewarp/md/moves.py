"""Positions of a Simulation moved by kernels that leave its density invariant: the half that knows no OpenMM objects.

The law of a Simulation is pi(x) N(v), pi(x) = exp(-U(x)/kT) and N the Maxwell-Boltzmann law of the velocities. A
kernel that leaves pi invariant moves x and looks at nothing else. Where it moved x, v is drawn anew from N; where it
did not, v stays. At equilibrium v is independent of x, hence of everything that the kernel did, and it has the law N
in both cases: x' and v' are independent again, with laws pi and N. So pi(x) N(v) is invariant under every move, and
under any mixture of moves and dynamics whose turns no state decides (every so many steps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from timewarp import units
from timewarp.kernel import Kernel
from timewarp.md.target import Condition, Target
from timewarp.state import Positions, State

TOLERANCE = 0.1  # kJ/mol, between the energy of the dynamics and that of the kernel; and
RELATIVE = 1e-5  # of the energy, for platforms of single precision

Place = Callable[[Positions, Positions], Positions]  # (moved, present) -> the moved ones in the pose of the present


class PotentialChanged(RuntimeError):
    """The dynamics and the moves no longer have the same potential energy, so that nothing would be exact."""


@dataclass(frozen=True)
class Bound:
    """A kernel for one target.

    Attributes:
        kernel: exact, one test a step, with `moved` and `energy` as those of timewarp.mcmc.
        place: puts shapes into the pose of the present; None for a kernel that proposes the pose too.
        arrays: what makes the kernel the same again, beside the target.
        notices: on how it was made, a line each.
    """

    kernel: Any
    place: Place | None = None
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def __post_init__(self):
        kind = type(self.kernel).__name__
        if not isinstance(self.kernel, Kernel) or not hasattr(self.kernel, "moved"):
            raise TypeError(f"expected a kernel with init, step and moved, got {kind}; use one of timewarp.mcmc")
        if not getattr(self.kernel, "exact", False):
            raise ValueError(f"expected an exact kernel, got {kind}, which is not; use one of timewarp.mcmc")
        if self.kernel.max_tests != 1:
            raise ValueError(
                f"expected a kernel that makes one test a step, got {kind} with up to {self.kernel.max_tests}: handing "
                "over after an acceptance biases the mixture; set its width to 1"
            )


Binder = Callable[[Target, Mapping[str, Tensor] | None], Bound]


class Moves:
    """Kernels, one for each condition that is met, and what each of them remembers.

    Args:
        bind: makes the kernel of a target; the second argument is the `arrays` of an earlier one, or None.
        proposals: how many a call tests.
    """

    def __init__(self, bind: Binder, proposals: int):
        if proposals < 1:
            raise ValueError(f"expected at least 1 proposal a move, got {proposals}")
        self.bind, self.proposals = bind, proposals
        self.bound: dict[Condition, Bound] = {}
        self._memory: dict[Condition, Any] = {}

    def prepare(self, condition: Condition, target: Callable[[], Target]) -> Bound:
        """The kernel for this condition, made where it is met for the first time."""
        if condition not in self.bound:
            self.bound[condition] = self.bind(target(), None)
        return self.bound[condition]

    def __call__(
        self, condition: Condition, positions: Float[np.ndarray, "atoms 3"], energy: float, rng: torch.Generator
    ) -> tuple[Float[np.ndarray, "atoms 3"] | None, int, int]:
        """Test some proposals, one after another, from `positions` (nm).

        Args:
            energy: of the positions, as the dynamics compute it, kJ/mol.

        Returns:
            The new positions, None where all were rejected; proposals tested; proposals accepted.

        Raises:
            PotentialChanged: if the kernel finds another energy.
        """
        bound = self.bound[condition]
        kernel = bound.kernel
        present, reduced = self.check(condition, positions, energy)
        memory = self._memory.get(condition)
        if memory is None:
            memory = kernel.init(State.at(present))
        else:
            memory, _ = kernel.moved(memory, present, reduced)
        accepted = 0
        for _ in range(self.proposals):
            memory, info = kernel.step(memory, rng)
            accepted += int(info["accepted"][0])
        self._memory[condition] = memory
        if not accepted:
            return None, self.proposals, 0
        new = memory.state.positions
        if bound.place is not None:
            new = bound.place(new, present)
        return new[0].double().numpy() + _origin(bound, positions), self.proposals, accepted

    def check(
        self, condition: Condition, positions: Float[np.ndarray, "atoms 3"], energy: float
    ) -> tuple[Positions, Float[Tensor, " chains"]]:
        """The positions about their origin as a batch of one, and U/kT there.

        Raises:
            PotentialChanged: if the kernel finds another energy than `energy` in kJ/mol.
        """
        bound = self.bound[condition]
        present = torch.as_tensor(positions - _origin(bound, positions), dtype=torch.float32)[None]
        reduced = bound.kernel.energy(present).double()
        found = float(reduced[0]) * units.kT(condition.temperature)
        if not abs(found - energy) <= TOLERANCE + RELATIVE * abs(energy):
            raise PotentialChanged(
                f"expected the energy of the simulation, {energy:.4f} kJ/mol, of the moves too, got {found:.4f}; the "
                "potential was changed after the sampler was made, or the System after its Context: make both again"
            )
        return present, reduced

    def tensors(self) -> tuple[dict[str, Tensor], list[Any]]:
        """(a flat mapping to be saved, the conditions as plain values); `restore` reads both back."""
        flat: dict[str, Tensor] = {}
        conditions = []
        for i, (condition, bound) in enumerate(self.bound.items()):
            conditions.append([condition.temperature, [list(p) for p in condition.parameters], condition.system])
            flat |= {f"{i}.bound.{k}": v for k, v in bound.arrays.items()}
            if condition in self._memory:
                flat |= {f"{i}.memory.{k}": v for k, v in self._memory[condition].tensors().items()}
        return flat, conditions

    def restore(self, flat: Mapping[str, Tensor], conditions: list[Any], target: Callable[[Condition], Target]) -> None:
        """The inverse of `tensors`; `target` gives the target of each condition."""
        self.bound, self._memory = {}, {}
        for i, (temperature, parameters, system) in enumerate(conditions):
            condition = Condition(temperature, tuple((name, value) for name, value in parameters), system)
            self.bound[condition] = self.bind(target(condition), _part(flat, f"{i}.bound."))
            memory = _part(flat, f"{i}.memory.")
            if memory:
                self._memory[condition] = self.bound[condition].kernel.restore(memory)


def _origin(bound: Bound, positions: np.ndarray) -> np.ndarray:
    """The centre, far from which single precision would be coarse; nothing where the energy may see the place."""
    return np.zeros(3) if bound.place is None else positions.mean(0)


def _part(flat: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}
