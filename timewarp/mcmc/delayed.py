"""Delayed acceptance: a cheap energy tests every proposal, and what it accepts is tested again with the right one.

Christen and Fox (2005, J. Comput. Graph. Stat. 14, 795). The first stage is any kernel of this package, reversible with
respect to exp(-U_1); the second accepts x' in place of x with

    alpha_2 = min(1, exp((U_2(x) - U_2(x')) + (U_1(x') - U_1(x)))).

| symbol | variable |
|---|---|
| U_1, of x and x' | stay.energy, inner.energy |
| U_2, of x and x' | present, proposed |

Why it is exact: pi_1(x) K(x, x') is symmetric in x and x', and so is pi_2(x) K(x, x') alpha_2, as it is
pi_1(x) K(x, x') times min(pi_2(x)/pi_1(x), pi_2(x')/pi_1(x')). U_1 is the number that the first stage used and keeps,
never computed again: its rounding errors cancel too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timewarp.kernel import Energy
from timewarp.mcmc import accept
from timewarp.state import Positions, State


@dataclass(frozen=True)
class Judged:
    """What the first stage remembers, and U_2 (float64) of the present."""

    inner: Any
    energy: Float[Tensor, " chains"]

    @property
    def state(self) -> State:
        return self.inner.state

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `Delayed.restore` reads it back."""
        return {f"first.{k}": v for k, v in self.inner.tensors().items()} | {"last": self.energy}


@dataclass(frozen=True)
class Delayed:
    """Exact kernel for exp(-U_2): what `kernel` accepts by U_1 is accepted by U_2, or undone.

    A refusal puts back what the first stage would be had its own test failed (its info's `refused`), auxiliary
    variables included: velocities as they were refreshed, momenta turned round. Wrap a whole mixture, not its parts.

    The info has, beside what every info has (all after both tests): `tested_again`, which chains had a second test,
    and `difference`, U_2 - U_1 of what it tested, NaN elsewhere. Statistics that the first stage keeps in its own state
    are before the second test.

    Attributes:
        kernel: the first stage, of one test a step.
        energy: U_2 of a batch, called with float64 positions and only for what has to be judged.
    """

    kernel: Any
    energy: Energy

    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if self.kernel.max_tests != 1:
            raise ValueError(
                f"expected a first stage of one test a step, got up to {self.kernel.max_tests}; set its width to 1"
            )

    @property
    def exact(self) -> bool:
        return self.kernel.exact

    def init(self, state: State) -> Judged:
        """The chains at their beginning.

        Raises:
            ValueError: if the state is bad for the first stage, or has an energy U_2 that is not finite.
        """
        return self.begun(self.kernel.init(state))

    def begun(self, inner: Any) -> Judged:
        """The chains where a first stage alone has led them.

        Raises:
            ValueError: if an energy U_2 is not finite.
        """
        return Judged(inner, accept.initial_energy(self.energy, _double(inner.state)))

    def restore(self, tensors: dict[str, Tensor]) -> Judged:
        """The inverse of `Judged.tensors`."""
        first = {k.removeprefix("first."): v for k, v in tensors.items() if k.startswith("first.")}
        return Judged(self.kernel.restore(first), tensors["last"])

    @torch.no_grad()
    def step(self, judged: Judged, rng: torch.Generator) -> tuple[Judged, dict[str, Any]]:
        """One test in each chain, and a second one where it was accepted."""
        inner, info = self.kernel.step(judged.inner, rng)
        if "refused" not in info:
            raise ValueError(f"expected a first stage that says what a refusal leaves, got {self.kernel}")
        stay, moved = info["refused"], info["accepted"]
        # a kernel may have rewritten the present in its own coordinates, which rounds it
        x, y = judged.state.positions, stay.state.positions
        present, spent = self._known(judged.energy, (x != y).flatten(1).any(1), y)
        proposed, more = self._known(present, moved, inner.state.positions)
        passed = moved & accept.metropolis(present, proposed, inner.energy - stay.energy, rng)
        difference = torch.where(moved, proposed - inner.energy, torch.nan)
        if not passed.equal(moved):
            inner = self.kernel.restore(chosen(passed, inner.tensors(), stay.tensors()))
        energy = torch.where(passed, proposed, present)
        return Judged(inner, energy), info | {
            "accepted": passed,
            "energy": energy,
            "evaluations": info["evaluations"] + spent + more,
            "tested_again": moved,
            "difference": difference,
            "refused": Judged(stay, present),
        }

    def _known(self, energy: Tensor, new: Bool[Tensor, " chains"], positions: Positions) -> tuple[Tensor, int]:
        """`energy`, with U_2 of `positions` where these are `new`; and how many of them are."""
        if not (count := int(new.sum())):
            return energy, 0
        energy = energy.clone()
        energy[new] = self.energy(positions[new].double()).double()
        return energy, count


def chosen(pick: Bool[Tensor, " chains"], new: dict[str, Tensor], old: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a kernel's state, `new` in some chains and `old` in the others.

    What is one and the same tensor, or a number, belongs to no chain; all else has the chains along its first axis.
    """

    def of(a: Tensor, b: Tensor) -> Tensor:
        return a if a is b or not a.ndim else torch.where(pick.view(-1, *[1] * (a.ndim - 1)), a, b)

    return {name: of(value, old[name]) for name, value in new.items()}


def _double(state: State) -> State:
    return replace(state, positions=state.positions.double())
