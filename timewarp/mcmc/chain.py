"""The present of a batch of chains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.kernel import Energy
from timewarp.mcmc.accept import initial_energy
from timewarp.state import Positions, State


@dataclass(frozen=True)
class Chain:
    """The state that each chain is in, and its energy U/kT (float64)."""

    state: State
    energy: Float[Tensor, " chains"]

    @classmethod
    def at(cls, energy: Energy, state: State, channels: int) -> Chain:
        """The beginning of the chains; velocities of another width than `channels` are replaced by zeros.

        No kernel reads the velocities that it is started with: they are drawn anew before they are used.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies.
        """
        if state.velocities.shape != (*state.positions.shape[:-1], channels):
            state = replace(state, velocities=state.positions.new_zeros(*state.positions.shape[:-1], channels))
        return cls(state, initial_energy(energy, state))

    def moved(self, positions: Positions, energy: Float[Tensor, " chains"]) -> Chain:
        """The chains at other positions of known energy."""
        return replace(self, state=replace(self.state, positions=positions), energy=energy)

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `from_tensors` reads it back."""
        return {"positions": self.state.positions, "velocities": self.state.velocities, "energy": self.energy}

    @classmethod
    def from_tensors(cls, flat: dict[str, Tensor]) -> Chain:
        """The inverse of `tensors`."""
        return cls(State(flat["positions"], flat["velocities"]), flat["energy"])


def single_test(accepted: Tensor, energy: Tensor, evaluations: int, refused: Any = None) -> dict:
    """The info of a step that tested one proposal in each chain.

    `refused` is what the kernel's state would be had every test failed; its tensors and those of the new state are the
    same objects where they belong to no chain, and have the chains along their first axis elsewhere. See `Delayed`.
    """
    tested = torch.ones(accepted.shape, dtype=torch.int64, device=accepted.device)
    info = {"tested": tested, "accepted": accepted, "energy": energy, "evaluations": evaluations}
    return info if refused is None else info | {"refused": refused}
