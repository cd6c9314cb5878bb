"""The protocols that everything meets in, and the only sampling loop.

`Energy` is U/kT of a batch. A `Transition` is the distribution that a flow returns for given positions.
A `Proposal` maps positions to a `Transition`; a `Factored` one shows that it carries noise to positions once its
first factor is given.
A `Kernel` is a pure `init`/`step` pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timewarp.state import Positions, State

S = TypeVar("S")


@runtime_checkable
class Energy(Protocol):
    """U/kT of a batch of configurations; +inf where an evaluation fails, for that configuration alone."""

    def __call__(self, positions: Positions) -> Float[Tensor, "*batch"]: ...


@runtime_checkable
class Sloped(Energy, Protocol):
    """An energy that knows its gradient without a trace of how it came about."""

    def slope(self, positions: Positions) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch atoms 3"]]:
        """(U/kT, its gradient in 1/nm)."""
        ...


def slope(energy: Energy, positions: Positions) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch atoms 3"]]:
    """(U/kT, its gradient in 1/nm), neither of which is differentiable.

    Raises:
        ValueError: if the energy has no gradient.
    """
    own = getattr(energy, "slope", None)  # of a `Sloped`, asked for often
    if own is not None:
        return own(positions)
    with torch.enable_grad():
        x = positions.detach().requires_grad_()
        value = energy(x)
        if not value.requires_grad:
            raise ValueError("expected an energy that torch can differentiate, got one without a gradient")
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


@runtime_checkable
class Transition(Protocol):
    """p(x', v' | x) for a batch of x of shape [batch, atoms, 3]."""

    def log_prob(self, state: State) -> Float[Tensor, "*batch"]:
        """log p of `state`, one for each configuration that the transition starts from."""
        ...

    def sample(self, count: int, rng: torch.Generator) -> tuple[State, Float[Tensor, "count *batch"]]:
        """`count` draws from each start, with their log p: leading axis `count`, then the batch of starts."""
        ...


@runtime_checkable
class Proposal(Protocol):
    """A conditional density bound to one molecule: positions in, distribution out.

    `memoryless` is true when the density does not depend on the positions but through the rigid-body pose
    (which no energy sees), so that log_prob of a state may be kept. `channels` is the width of the auxiliary
    velocities (0 for none).
    """

    @property
    def memoryless(self) -> bool: ...

    @property
    def channels(self) -> int: ...

    def __call__(self, positions: Positions) -> Transition: ...


class Given(NamedTuple):
    """Torsions tau with ln q(tau), and what `Factored.placed` has to know of them."""

    torsions: Float[Tensor, "count torsions"]
    log_prob: Float[Tensor, " count"]
    basin: tuple[Tensor, ...]


class Placed(NamedTuple):
    """Where (tau, e) is: positions, U/kT, ln |d(tau, e)/dx|, and the gradient of U/kT + ln |d(tau, e)/dx| with e.

    The gradient may be approximate: it steers, and decides nothing. The rest is exact, float64.
    """

    positions: Positions
    energy: Float[Tensor, " count"]
    log_det: Float[Tensor, " count"]
    gradient: Float[Tensor, "count noises"]


@runtime_checkable
class Factored(Protocol):
    """A memoryless proposal q(tau) N(e; 0, I), without velocities, in coordinates (tau, e) of x.

    `cost` is the number of energy evaluations for each configuration: of `draw` or `given`, and of `placed`, where
    it always is the same; else it is the least, and `asked` counts what there were so far. `noises` is the number of
    coordinates e.
    """

    @property
    def cost(self) -> tuple[int, int]: ...

    @property
    def noises(self) -> int: ...

    def draw(self, count: int, rng: torch.Generator) -> Given:
        """Torsions drawn from q."""
        ...

    def given(self, positions: Positions) -> tuple[Given, Float[Tensor, "count noises"]]:
        """What `draw` says of the torsions of these positions; and e there."""
        ...

    def placed(self, given: Given, noise: Float[Tensor, "count noises"]) -> Placed:
        """The configurations of torsions and noise."""
        ...


@runtime_checkable
class Regrowing(Factored, Protocol):
    """One that draws a part of tau given the others, which stay; `kept`, from 1 to `parts`, says which."""

    @property
    def parts(self) -> int: ...

    def torsions(self, positions: Positions) -> Float[Tensor, "count torsions"]:
        """tau of these positions."""
        ...

    def regrown(
        self, present: Float[Tensor, "chains torsions"], kept: int, rows: Int[Tensor, " count"], rng: torch.Generator
    ) -> Given:
        """The torsions that stay, of a present, the row of each draw, and others drawn from a law given these."""
        ...

    def given(self, positions: Positions, kept: int = 0) -> tuple[Given, Float[Tensor, "count noises"]]:
        """What `regrown` says of the torsions of these positions: ln of that law; and e there."""
        ...


class Move(NamedTuple):
    """A proposed state and ln q(x|x') - ln q(x'|x), which is ADDED to ln pi(x') - ln pi(x)."""

    state: State
    log_ratio: Float[Tensor, "*batch"]


@runtime_checkable
class Kernel(Protocol[S]):
    """A Markov kernel, pure: the same (state, rng state) in gives the same out."""

    def init(self, state: State) -> S: ...

    def step(self, state: S, rng: torch.Generator) -> tuple[S, dict[str, Any]]: ...


def run(kernel: Kernel[S], state: S, steps: int, rng: torch.Generator) -> Iterator[tuple[S, dict[str, Any]]]:
    """Apply `kernel` `steps` times from `state` (made by `kernel.init`), yielding each state and its info."""
    for _ in range(steps):
        state, info = kernel.step(state, rng)
        yield state, info
