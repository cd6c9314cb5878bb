"""Local moves along the gradient of the energy: Hamiltonian Monte Carlo and Metropolised Langevin dynamics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.kernel import Energy, slope
from timewarp.mcmc import accept
from timewarp.mcmc.chain import Chain, single_test
from timewarp.state import Positions, State


@dataclass(frozen=True)
class Phase:
    """The present of the chains, their momenta (each N(0, 1) at equilibrium) and dU/dx in kT/nm."""

    present: Chain
    momenta: Float[Tensor, "chains atoms 3"]
    gradient: Float[Tensor, "chains atoms 3"]

    @property
    def state(self) -> State:
        return self.present.state

    @property
    def energy(self) -> Float[Tensor, " chains"]:
        return self.present.energy

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `from_tensors` reads it back."""
        return self.present.tensors() | {"momenta": self.momenta, "gradient": self.gradient}

    @classmethod
    def from_tensors(cls, flat: dict[str, Tensor]) -> Phase:
        """The inverse of `tensors`."""
        return cls(Chain.from_tensors(flat), flat["momenta"], flat["gradient"])


@dataclass(frozen=True)
class Hamiltonian:
    """Exact kernel: leapfrog trajectories of H(x, z) = U(x) + |z|^2/2, accepted with min(1, exp(H - H')).

        symbol     variable
        m          masses (amu)
        z          momenta, scaled: p / sqrt(m kT), so N(0, 1) for every atom
        epsilon    step_size (nm sqrt(amu)): the time step in ps times sqrt(kT / (kJ/mol))
        s          epsilon / sqrt(m), the length of a leapfrog step (nm)

        z <- c z + sqrt(1 - c^2) N(0, I)                      c = persistence
        `steps` times:  z <- z - s/2 dU/dx;  x <- x + s z;  z <- z - s/2 dU/dx
        rejected:       z <- -z at the old x

    The masses are a choice, the law of x does not depend on them. The stiffest vibration limits the step; heavier
    hydrogens (3 amu) allow a longer one. c = 0 is Hamiltonian Monte Carlo. c near 1 with one leapfrog step is
    underdamped Langevin dynamics with a Metropolis test (generalised HMC; Horowitz 1991), see `langevin`.

    Attributes:
        energy: U/kT of a batch, differentiable.
        masses: amu.
        step_size: nm sqrt(amu).
        steps: leapfrog steps of a trajectory, each one evaluation of energy and gradient.
        persistence: how much of z is kept, 0 <= c < 1.
        jitter: each trajectory's step is `step_size` times a uniform number in [1 - jitter, 1 + jitter], so that no
            period of the system is hit for ever.
    """

    energy: Energy
    masses: Float[Tensor, " atoms"]
    step_size: float
    steps: int = 10
    persistence: float = 0.0
    jitter: float = 0.2

    exact: ClassVar[bool] = True
    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if not (self.masses.isfinite() & (self.masses > 0)).all():
            raise ValueError(f"expected positive masses in amu, got {self.masses.tolist()}; is there a virtual site?")
        if not (self.step_size > 0 and self.steps >= 1 and 0 <= self.persistence < 1 and 0 <= self.jitter < 1):
            raise ValueError(
                "expected step_size > 0, steps >= 1, 0 <= persistence < 1 and 0 <= jitter < 1, got "
                f"{self.step_size}, {self.steps}, {self.persistence}, {self.jitter}"
            )

    def init(self, state: State) -> Phase:
        """The chains at their beginning, at rest.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies and gradients.
        """
        present = Chain.at(self.energy, state, state.velocities.shape[-1])
        _, gradient = self._slope(state.positions)
        accept.require_finite("an initial gradient dU/dx", gradient.flatten(1).sum(1), "minimise the structure first")
        return Phase(present, torch.zeros_like(gradient), gradient)

    def at(self, positions: Positions, energy: Float[Tensor, " chains"]) -> Phase:
        """Chains at rest at positions of known energy, which nobody looks at: that would have a GPU wait."""
        present = Chain(State.at(positions), energy)
        return Phase(present, torch.zeros_like(positions), self._slope(positions)[1])

    def restore(self, tensors: dict[str, Tensor]) -> Phase:
        """The inverse of `Phase.tensors`."""
        return Phase.from_tensors(tensors)

    def moved(self, phase: Phase, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Phase, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        _, gradient = self._slope(positions)
        return replace(phase, present=phase.present.moved(positions, energy), gradient=gradient), len(positions)

    @torch.no_grad()
    def step(self, phase: Phase, rng: torch.Generator) -> tuple[Phase, dict[str, Any]]:
        """One trajectory in each chain."""
        x0, energy0, g0 = phase.state.positions, phase.energy, phase.gradient
        c = self.persistence
        z0 = c * phase.momenta + math.sqrt(1 - c * c) * _normal(x0, rng)
        s = self._lengths(x0, rng)
        x, energy, z, g = self._trajectory(x0, energy0, z0, g0, s)
        accepted = accept.metropolis(energy0, energy, _kinetic(z0) - _kinetic(z), rng)
        each = accepted[:, None, None]
        refused = replace(phase, momenta=-z0)
        state = replace(phase.state, positions=torch.where(each, x, x0))
        present = Chain(state, torch.where(accepted, energy, energy0))
        phase = Phase(present, torch.where(each, z, -z0), torch.where(each, g, g0))
        return phase, single_test(accepted, present.energy, self.steps * len(x), refused)

    def _trajectory(self, x, energy, z, g, s):
        for _ in range(self.steps):
            z = z - 0.5 * s * g
            x = x + s * z
            energy, g = self._slope(x)
            z = z - 0.5 * s * g
        return x, energy, z, g

    def _lengths(self, x: Positions, rng: torch.Generator) -> Float[Tensor, "chains atoms 1"]:
        u = torch.rand(len(x), generator=rng, dtype=x.dtype, device=x.device)
        size = self.step_size * (1 + self.jitter * (2 * u - 1))
        return size[:, None, None] / self.masses.to(x).sqrt()[:, None]

    def _slope(self, x: Positions) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains atoms 3"]]:
        energy, gradient = slope(self.energy, x)
        return energy.double(), gradient


def langevin(energy: Energy, masses: Float[Tensor, " atoms"], step_size: float, friction: float) -> Hamiltonian:
    """Metropolised underdamped Langevin dynamics, one step a test: z keeps exp(-friction step_size) of itself.

    Rejections turn the momenta round, so it diffuses only where acceptance is near 1: take the step that small.

    Args:
        energy: U/kT of a batch, differentiable.
        masses: amu.
        step_size: nm sqrt(amu), see `Hamiltonian`.
        friction: 1/(nm sqrt(amu)).
    """
    return Hamiltonian(energy, masses, step_size, 1, math.exp(-friction * step_size), 0.0)


def _normal(x: Positions, rng: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)


def _kinetic(z: Float[Tensor, "chains atoms 3"]) -> Float[Tensor, " chains"]:
    return 0.5 * z.double().square().sum((-2, -1))
