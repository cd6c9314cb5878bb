"""A flow move for openmmtools: `TimewarpMove`. The only file that imports openmmtools, which is an extra."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import app, unit
from openmmtools.mcmc import MCMCMove
from torch import Tensor

from timewarp.md import graph
from timewarp.md.embeddable import require_embeddable
from timewarp.md.energy import fingerprint
from timewarp.md.gluing import flow_binder
from timewarp.md.moves import Bound, Moves
from timewarp.md.target import Condition, Target, frozen, kelvin

SEEDS = 2**31 - 1


class TimewarpMove(MCMCMove):
    """Proposals of a flow, tested at the temperature and with the System of the thermodynamic state.

        move = SequenceMove([LangevinDynamicsMove(n_steps=500), TimewarpMove(topology)])

    Positions change where a proposal is accepted; velocities are then drawn from the Maxwell-Boltzmann law, and stay
    as they are otherwise (drawn too where the sampler state has none). Why that is exact: timewarp/md/moves.py.

    **Random numbers.** openmmtools copies moves, directly and through their dictionaries, one for each replica, and
    replicas that were offered the same proposals would not be independent. So without a seed every copy draws from
    the system's entropy. With one, each call of `apply` has a stream told by the seed, the number of proposals before
    it, the condition and the positions, which no two replicas share; runs can then be repeated.

    A subclass may give another kernel by overriding `_bind`.

    Args:
        topology: of the peptide; a System has no names, elements or bonds.
        checkpoint: the flow: a name that came with the package or a path; None for the default one.
        n_proposals: how many each call tests, one after another.
        seed: None for another one each time.

    Attributes:
        n_accepted, n_proposed: proposals so far.

    Raises:
        InputError: from `apply`, in one line, if the flow cannot move the System.
        PotentialChanged: from `apply`, if the moves and the Context disagree about the energy.
    """

    def __init__(
        self,
        topology: app.Topology,
        checkpoint: str | Path | None = None,
        n_proposals: int = 10,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._begin(topology, None if checkpoint is None else str(checkpoint), n_proposals, seed)

    def _begin(self, topology: app.Topology, checkpoint: str | None, n_proposals: int, seed: int | None) -> None:
        self.topology, self.checkpoint, self.n_proposals, self.seed = topology, checkpoint, n_proposals, seed
        self.n_accepted = self.n_proposed = self._drawn = 0
        self._entropy = secrets.randbits(63) if seed is None else seed
        self._moves = Moves(self._bind, n_proposals)

    @property
    def fraction_accepted(self) -> float:
        """The share of the proposals that were accepted; NaN before the first."""
        return self.n_accepted / self.n_proposed if self.n_proposed else float("nan")

    @property
    def statistics(self) -> dict[str, int]:
        """The acceptance statistics as a dictionary."""
        return {"n_accepted": self.n_accepted, "n_proposed": self.n_proposed}

    @statistics.setter
    def statistics(self, value: Mapping[str, Any]) -> None:
        self.n_accepted, self.n_proposed = value["n_accepted"], value["n_proposed"]

    def reset_statistics(self) -> None:
        """Count from zero."""
        self.n_accepted = self.n_proposed = 0

    def apply(self, thermodynamic_state: Any, sampler_state: Any, context_cache: Any = None) -> None:
        """Test `n_proposals` proposals and change the sampler state, its velocities and its energies accordingly."""
        context, _ = self._get_context_cache(context_cache).get_context(thermodynamic_state)
        fresh = sampler_state.velocities is None
        sampler_state.apply_to_context(context, ignore_velocities=fresh)
        system = thermodynamic_state.get_system(remove_thermostat=True, remove_barostat=True)
        condition = Condition.of(context, kelvin(thermodynamic_state.temperature), fingerprint(system))
        state = context.getState(positions=True, energy=True)
        positions = np.asarray(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64)
        platform = context.getPlatform().getName()

        def target() -> Target:
            return Target(self.topology, frozen(system, condition), condition.temperature, positions, platform)

        self._moves.prepare(condition, target)
        rng = self._stream(condition, positions)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        moved, tested, accepted = self._moves(condition, positions, energy, rng)
        self.n_proposed += tested
        self.n_accepted += accepted
        if moved is not None:
            context.setPositions(moved * unit.nanometer)
        if moved is not None or fresh:
            context.setVelocitiesToTemperature(
                thermodynamic_state.temperature, int(torch.randint(1, SEEDS, (), generator=rng))
            )
        sampler_state.update_from_context(context)

    def _bind(self, target: Target, arrays: Mapping[str, Tensor] | None) -> Bound:
        """The kernel of a target; exact, of the target's energy."""
        require_embeddable(target.topology, target.system)
        return flow_binder(self.checkpoint)(target, arrays)

    def _stream(self, condition: Condition, positions: np.ndarray) -> torch.Generator:
        # the count only grows, also where statistics were set back, or set to those of another process
        self._drawn = max(self._drawn, self.n_proposed)
        state = hashlib.sha256(repr(condition).encode() + positions.tobytes()).digest()
        key = (self._drawn, *np.frombuffer(state, np.uint32).tolist())
        self._drawn += self.n_proposals
        number = np.random.SeedSequence(self._entropy, spawn_key=key).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(number))

    def __getstate__(self) -> dict[str, Any]:
        own = {"checkpoint": self.checkpoint, "n_proposals": self.n_proposals, "seed": self.seed, "drawn": self._drawn}
        return own | {"topology": graph.to_text(self.topology)} | self.statistics

    def __setstate__(self, serialization: Mapping[str, Any]) -> None:
        own = (serialization[name] for name in ("checkpoint", "n_proposals", "seed"))
        self._begin(graph.from_text(serialization["topology"]), *own)
        self._drawn = serialization["drawn"]
        self.statistics = serialization
