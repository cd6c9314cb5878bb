"""A kernel that is made several times over for one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from timewarp.state import Positions, State


@dataclass(frozen=True)
class Repeat:
    """A step is `times` steps of a kernel that is reversible; so is their product, and it leaves the same invariant.

    For moves that go a short way each, beside others that go far: chains that stay where they are from one far move to
    the next would else stand still for many frames in a row, each of them the same, and these few places would weigh
    the most.

    The info is that of one test, which is accepted where any of the `times` was; `made` and `moved` count them.

    Attributes:
        kernel: of one test a step, reversible (as a Hamiltonian of any `persistence` but 0 is not).
        times: at least 1.
    """

    kernel: Any
    times: int

    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if self.times < 1 or self.kernel.max_tests != 1 or getattr(self.kernel, "persistence", 0.0):
            raise ValueError(
                "expected at least 1 time, and a reversible kernel of one test a step, got "
                f"{self.times} and {type(self.kernel).__name__}"
            )

    @property
    def exact(self) -> bool:
        return self.kernel.exact

    def init(self, state: State) -> Any:
        """The kernel's own state at the beginning."""
        return self.kernel.init(state)

    def restore(self, tensors: dict[str, Tensor]) -> Any:
        """That of the kernel."""
        return self.kernel.restore(tensors)

    def moved(self, state: Any, positions: Positions, energy: Tensor) -> tuple[Any, int]:
        """That of the kernel."""
        return self.kernel.moved(state, positions, energy)

    def step(self, state: Any, rng: torch.Generator) -> tuple[Any, dict[str, Any]]:
        """`times` tests in each chain."""
        state, first = self.kernel.step(state, rng)
        moved, info, evaluations = first["accepted"].long(), first, first["evaluations"]
        for _ in range(self.times - 1):
            state, info = self.kernel.step(state, rng)
            moved = moved + info["accepted"]
            evaluations += info["evaluations"]
        whole = first | {"accepted": moved > 0, "energy": info["energy"], "evaluations": evaluations}
        return state, whole | {"made": self.times * first["tested"], "moved": moved}
