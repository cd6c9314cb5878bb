"""Exploration: where the flow can go, without the correction that makes it exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timewarp.kernel import Energy, Proposal
from timewarp.mcmc import accept
from timewarp.mcmc.chain import Chain, single_test
from timewarp.state import Positions, State


def _everything(positions: Positions) -> Bool[Tensor, "*batch"]:
    return torch.ones(positions.shape[:-2], dtype=torch.bool, device=positions.device)


@dataclass(frozen=True)
class Explore:
    """A biased kernel: accepts what raises the energy by at most `rise` and what `keep` keeps.

    Its chains find states fast; how often they visit them means nothing.

    Attributes:
        energy: U/kT of a batch.
        proposal: p(x', v'|x).
        rise: kT; the published threshold is 300 kJ/mol.
        keep: positions -> mask, true for those that may be visited (the chirality is that of the molecule).
    """

    energy: Energy
    proposal: Proposal
    rise: float
    keep: Callable[[Positions], Bool[Tensor, "*batch"]] = _everything

    exact: ClassVar[bool] = False
    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if not self.rise >= 0:
            raise ValueError(f"expected a rise of at least 0 kT, got {self.rise}; 300 kJ/mol is 116 kT at 310 K")

    def init(self, state: State) -> Chain:
        """The chains at their beginning.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies that `keep` keeps.
        """
        chain = Chain.at(self.energy, state, self.proposal.channels)
        lost = (~self.keep(state.positions)).nonzero().flatten().tolist()
        if lost:
            raise ValueError(
                f"expected initial positions that `keep` keeps, got others in chains {lost[:5]}; "
                "start from the structure whose chirality is to be kept"
            )
        return chain

    def restore(self, tensors: dict[str, Tensor]) -> Chain:
        """The inverse of `Chain.tensors`."""
        return Chain.from_tensors(tensors)

    def moved(self, chain: Chain, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Chain, int]:
        """The chains at positions that another kernel led to, and the energy evaluations that this took."""
        return chain.moved(positions, energy), 0

    @torch.no_grad()
    def step(self, chain: Chain, rng: torch.Generator) -> tuple[Chain, dict[str, Any]]:
        """One proposal in each chain."""
        proposed, _ = self.proposal(chain.state.positions).sample(1, rng)
        new = proposed[0]
        energy = self.energy(new.positions).double()
        accepted = accept.rise_below(chain.energy, energy, self.rise) & self.keep(new.positions)
        chain = Chain(new.where(accepted, chain.state), torch.where(accepted, energy, chain.energy))
        return chain, single_test(accepted, chain.energy, energy.numel())
