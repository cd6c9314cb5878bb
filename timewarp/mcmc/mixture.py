"""A mixture of kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.state import Positions, State


@dataclass(frozen=True)
class Parts:
    """What each kernel of the mixture remembers; the present is that of the one that moved last.

    Attributes:
        parts: each kernel's own state.
        last: the kernel that moved last.
        tested, accepted: what each kernel did so far, summed over the chains.
        turn: steps so far.
    """

    parts: tuple[Any, ...]
    last: int
    tested: Int[Tensor, " kernels"]
    accepted: Int[Tensor, " kernels"]
    turn: int = 0

    @property
    def state(self) -> State:
        return self.parts[self.last].state

    @property
    def energy(self) -> Float[Tensor, " chains"]:
        return self.parts[self.last].energy

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `Mixture.restore` reads it back."""
        flat = {f"{i}.{k}": v for i, part in enumerate(self.parts) for k, v in part.tensors().items()}
        own = {"last": torch.tensor(self.last), "turn": torch.tensor(self.turn)}
        return flat | own | {"tested": self.tested, "accepted": self.accepted}


@dataclass(frozen=True)
class Mixture:
    """Picks one of `kernels` at each step, the same for all chains, with probability proportional to `weights`.

    The choice looks at no state and every kernel makes one test, so the mixture leaves invariant what each of them
    does. Each kernel's auxiliary variables (velocities, momenta, a queue) are its own; only positions and their
    energy are handed on. The info is that of the kernel, with its number as `kernel`.

    Attributes:
        kernels: with a `moved` method, as all of this package.
        weights: positive, need not sum to 1.
    """

    kernels: tuple[Any, ...]
    weights: tuple[float, ...]

    max_tests = 1

    def __post_init__(self):
        if not self.kernels or len(self.kernels) != len(self.weights):
            raise ValueError(
                f"expected as many kernels as weights, at least one, got {len(self.kernels)} and {len(self.weights)}"
            )
        if not all(0 < w < float("inf") for w in self.weights):
            raise ValueError(f"expected positive finite weights, got {self.weights}; leave out what is not wanted")
        for kernel in self.kernels:
            if kernel.max_tests != 1:
                raise ValueError(
                    f"expected kernels that make one test a step, got {type(kernel).__name__} with up to "
                    f"{kernel.max_tests}: handing over after an acceptance biases the mixture; set its width to 1"
                )

    @property
    def exact(self) -> bool:
        return all(kernel.exact for kernel in self.kernels)

    def init(self, state: State) -> Parts:
        """The chains at their beginning.

        Raises:
            ValueError: if the state is bad for any of the kernels.
        """
        zero = torch.zeros(len(self.kernels), dtype=torch.int64, device=state.positions.device)
        return Parts(tuple(kernel.init(state) for kernel in self.kernels), 0, zero, zero)

    def restore(self, tensors: dict[str, Tensor]) -> Parts:
        """The inverse of `Parts.tensors`."""
        parts = []
        for i, kernel in enumerate(self.kernels):
            prefix = f"{i}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            parts.append(kernel.restore(own))
        counts = tensors["tested"], tensors["accepted"]
        return Parts(tuple(parts), int(tensors["last"]), *counts, int(tensors["turn"]))

    def moved(self, parts: Parts, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Parts, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        part, spent = self.kernels[parts.last].moved(parts.parts[parts.last], positions, energy)
        return replace(parts, parts=_with(parts.parts, parts.last, part)), spent

    def step(self, parts: Parts, rng: torch.Generator) -> tuple[Parts, dict[str, Any]]:
        """One step of one of the kernels."""
        weights = torch.tensor(self.weights, dtype=torch.float64, device=rng.device)
        return self.step_of(int(torch.multinomial(weights, 1, generator=rng)), parts, rng)

    def step_of(self, i: int, parts: Parts, rng: torch.Generator) -> tuple[Parts, dict[str, Any]]:
        """One step of kernel number `i`."""
        kernel, part, spent = self.kernels[i], parts.parts[i], 0
        if i != parts.last:
            part, spent = kernel.moved(part, parts.state.positions, parts.energy)
        part, info = kernel.step(part, rng)
        one = torch.zeros_like(parts.tested)
        one[i] = 1
        parts = Parts(
            _with(parts.parts, i, part),
            i,
            parts.tested + one * info.get("made", info["tested"]).sum(),
            parts.accepted + one * info.get("moved", info["accepted"]).sum(),
            parts.turn + 1,
        )
        if "refused" in info:
            info = info | {"refused": replace(parts, parts=_with(parts.parts, i, info["refused"]))}
        return parts, info | {"kernel": i, "evaluations": info["evaluations"] + spent}


def _with(parts: tuple, i: int, part: Any) -> tuple:
    return (*parts[:i], part, *parts[i + 1 :])
