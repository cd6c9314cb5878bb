"""Parallel tempering: replicas at several temperatures exchange their configurations (Swendsen and Wang 1986).

Many independent ladders stand side by side in one batch of chains: chain `ladder * rungs + rung`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from timewarp.kernel import run
from timewarp.mcmc import accept
from timewarp.state import State


@runtime_checkable
class Replicas(Protocol):
    """What the chains of a kernel that can be heated remember."""

    @property
    def state(self) -> State: ...

    @property
    def energy(self) -> Float[Tensor, " chains"]: ...

    @property
    def tempered(self) -> Float[Tensor, " chains"]: ...

    def taken(self, index: Tensor, scale: Tensor): ...

    def put(self, index: Tensor, other): ...


R = TypeVar("R", bound=Replicas)


@dataclass(frozen=True)
class Ladders(Generic[R]):
    """The replicas of all ladders, and how their swaps went.

    Attributes:
        replicas: of the kernel that is heated.
        turn: how many rounds of swaps there were; even ones swap rungs (0, 1), (2, 3), ..., odd ones (1, 2), ...
        origin: in which rung the present configuration of each rung began.
        tried, swapped: of each pair of neighbouring rungs, over all ladders.
    """

    replicas: R
    turn: int
    origin: Int[Tensor, "ladders rungs"]
    tried: Int[Tensor, " pairs"]
    swapped: Int[Tensor, " pairs"]

    @property
    def coldest(self) -> Int[Tensor, " ladders"]:
        """Which chains are in the coldest rung, one a ladder."""
        return torch.arange(0, self.origin.numel(), self.origin.shape[1], device=self.origin.device)

    @property
    def cold(self) -> R:
        """The replicas of the coldest rung."""
        return self.replicas.taken(self.coldest, torch.ones(len(self.origin), device=self.origin.device))

    @property
    def state(self) -> State:
        return self.cold.state

    @property
    def energy(self) -> Float[Tensor, " ladders"]:
        return self.cold.energy

    @property
    def acceptance(self) -> Float[Tensor, " pairs"]:
        """Share of swaps that were accepted, of each pair of rungs; nan where none was tried."""
        return self.swapped / self.tried

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping of tensors, to be saved; `Tempering.restore` reads it back."""
        own = {name: getattr(self, name) for name in ("origin", "tried", "swapped")}
        flat = {f"replicas.{name}": value for name, value in self.replicas.tensors().items()}  # type: ignore[attr-defined]
        return own | flat | {"turn": torch.tensor(self.turn)}


@dataclass(frozen=True)
class Tempering:
    """The kernel: `between` steps of the heated kernel in every replica, then one round of swaps.

        symbol     variable
        h_i        heats, temperatures in units of the target's
        w          tempered: the density of rung i is proportional to exp(w / h_i) times what is the same in all rungs

        ln alpha = (1/h_i - 1/h_j) (w(x_j) - w(x_i))            configurations of rungs i and j change places

    Velocities of the configurations that change places are scaled by sqrt(h_new / h_old).

    Attributes:
        kernel: with a `heated` method, whose chains remember `tempered` and can be `taken` in another order.
        heats: ascending; the first is 1 where the target's temperature is wanted.
        between: steps of the kernel between rounds.
        local: a kernel of the target that moves the coldest rung once more in each round.
    """

    kernel: Any
    heats: Float[Tensor, " rungs"]
    between: int = 1
    local: Any = None

    max_tests = 1

    def __post_init__(self):
        if not (len(self.heats) >= 1 and (self.heats > 0).all() and (self.heats.diff() > 0).all()):
            raise ValueError(f"expected ascending positive heats, got {self.heats.tolist()}")

    @property
    def exact(self) -> bool:
        return self.kernel.exact and (self.local is None or self.local.exact)

    def init(self, state: State) -> Ladders:
        """Ladders whose rungs all begin at these states, [ladders, atoms, 3].

        Raises:
            ValueError: if a state is bad for the kernel.
        """
        return self.of(self._heated(len(state.positions)).init(state[self._repeated(len(state.positions))]))

    def of(self, replicas: R) -> Ladders[R]:
        """Ladders of replicas that are there already, as many rungs side by side as there are heats."""
        rungs = len(self.heats)
        chains = len(replicas.tempered)
        if chains % rungs:
            raise ValueError(f"expected a multiple of {rungs} replicas, one for each rung, got {chains}")
        device = replicas.tempered.device
        origin = torch.arange(rungs, device=device).expand(chains // rungs, -1)
        zero = torch.zeros(rungs - 1, dtype=torch.int64, device=device)
        return Ladders(replicas, 0, origin, zero, zero)

    def restore(self, tensors: dict[str, Tensor]) -> Ladders:
        """The inverse of `Ladders.tensors`."""
        own = {k.removeprefix("replicas."): v for k, v in tensors.items() if k.startswith("replicas.")}
        rest = {name: tensors[name] for name in ("origin", "tried", "swapped")}
        return Ladders(self.kernel.restore(own), int(tensors["turn"]), **rest)

    def step(self, ladders: Ladders, rng: torch.Generator) -> tuple[Ladders, dict[str, Any]]:
        """Moves and one round of swaps; the info is that of the last moves in the coldest rungs."""
        kernel, replicas, spent = self._heated(len(ladders.origin)), ladders.replicas, 0
        for replicas, info in run(kernel, replicas, self.between, rng):  # noqa: B007, B020
            spent += info["evaluations"]
        if self.local is not None:
            replicas, also = self._local(replicas, ladders.coldest, rng)
            spent += also
        accepted = self._accepted(replicas.tempered.view(ladders.origin.shape), ladders.turn, rng)
        ladders = self._swapped(replace(ladders, replicas=replicas), accepted)
        rung = slice(None, None, len(self.heats))
        cold = {name: info[name][rung] for name in ("tested", "accepted")}
        return ladders, cold | {"energy": ladders.energy, "evaluations": spent, "swapped": accepted}

    def on(self, heats: Float[Tensor, " rungs"], ladders: Ladders) -> tuple[Tempering, Ladders]:
        """Ladders of other heats; each rung begins at the configuration of the old rung whose heat is nearest."""
        new = replace(self, heats=heats)
        nearest = (heats.log()[:, None] - self.heats.log()).abs().argmin(1).to(ladders.origin.device)
        count, rungs = ladders.origin.shape
        index = (torch.arange(count, device=nearest.device)[:, None] * rungs + nearest).flatten()
        scale = (heats / self.heats[nearest.to(self.heats.device)]).sqrt().repeat(count)
        return new, new.of(ladders.replicas.taken(index, scale))

    def _heated(self, ladders: int):
        return self.kernel.heated(self.heats.repeat(ladders))

    def _local(self, replicas: R, coldest: Tensor, rng: torch.Generator) -> tuple[R, int]:
        cold = replicas.taken(coldest, torch.ones(len(coldest), device=coldest.device))
        moved, info = self.local.step(self.local.at(cold.state.positions, cold.energy), rng)
        cold, spent = self.kernel.moved(cold, moved.state.positions, moved.energy)
        return replicas.put(coldest, cold), info["evaluations"] + spent + len(coldest)

    def _repeated(self, ladders: int) -> Tensor:
        return torch.arange(ladders).repeat_interleave(len(self.heats))

    def _accepted(
        self, w: Float[Tensor, "ladders rungs"], turn: int, rng: torch.Generator
    ) -> Bool[Tensor, "ladders pairs"]:
        """Which pairs of neighbours change places, every second pair being tried."""
        inverse = 1 / self.heats.to(w)
        log_alpha = (inverse[:-1] - inverse[1:]) * (w[:, 1:] - w[:, :-1])
        zero = torch.zeros_like(log_alpha)
        tried = torch.arange(log_alpha.shape[1], device=w.device) % 2 == turn % 2
        return accept.metropolis(zero, zero, log_alpha, rng) & tried

    def _swapped(self, ladders: Ladders[R], accepted: Bool[Tensor, "ladders pairs"]) -> Ladders[R]:
        count, rungs = ladders.origin.shape
        device = accepted.device
        none = accepted.new_zeros(count, 1)
        up, down = torch.cat([accepted, none], 1), torch.cat([none, accepted], 1)
        source = torch.arange(rungs, device=device) + up.long() - down.long()
        heats = self.heats.to(device)
        scale = (heats / heats[source]).sqrt().flatten()
        index = (source + rungs * torch.arange(count, device=device)[:, None]).flatten()
        tried = (torch.arange(rungs - 1, device=device) % 2 == ladders.turn % 2).long() * count
        return Ladders(
            ladders.replicas.taken(index, scale),
            ladders.turn + 1,
            ladders.origin.gather(1, source),
            ladders.tried + tried,
            ladders.swapped + accepted.sum(0),
        )


def spaced(
    heats: Float[Tensor, " pilot"], tempered: Float[Tensor, " pilot"], acceptance: float = 0.3
) -> Float[Tensor, " rungs"]:
    """Heats from the first to the last between which swaps are accepted about alike, as many as it takes.

    For normally distributed energies the acceptance between neighbours is erfc(L / 2) with
    L^2 = (1/h_i - 1/h_j) (<w>_i - <w>_j), a length that adds up along the ladder (Kone and Kofke 2005,
    J. Chem. Phys. 122, 206101).

    Args:
        heats: ascending, of a pilot run.
        tempered: the mean of w in each of its rungs.
        acceptance: wanted between neighbours.
    """
    fall = ((1 / heats[:-1] - 1 / heats[1:]) * (tempered[:-1] - tempered[1:])).double().clamp_min(1e-6).sqrt()
    along = torch.cat([fall.new_zeros(1), fall.cumsum(0)])
    wanted = 2 * float(torch.erfinv(torch.tensor(1 - acceptance, dtype=torch.float64)))
    count = max(1, round(float(along[-1]) / wanted))
    marks = torch.linspace(0, float(along[-1]), count + 1, dtype=torch.float64)
    right = torch.searchsorted(along, marks).clamp(1, len(along) - 1)
    part = (marks - along[right - 1]) / (along[right] - along[right - 1])
    logs = heats.double().log()
    found = (logs[right - 1] + part * (logs[right] - logs[right - 1])).exp()
    found[0], found[-1] = heats[0], heats[-1]
    return found.to(heats.dtype)


def adapted(
    tempering: Tempering,
    ladders: Ladders,
    steps: int,
    rng: torch.Generator,
    acceptance: float = 0.3,
    told: Callable[[Tempering], None] = lambda _: None,
) -> tuple[Tempering, Ladders]:
    """Run a pilot, space the rungs by what it saw, and freeze them: what is sampled afterwards is exact.

    The second half of the pilot counts.
    """
    total, count = torch.zeros(len(tempering.heats), dtype=torch.float64), 0
    for number, (ladders, _) in enumerate(run(tempering, ladders, steps, rng)):  # noqa: B020
        if 2 * number >= steps:
            total += ladders.replicas.tempered.double().view(ladders.origin.shape).median(0).values.cpu()
            count += 1
    heats = spaced(tempering.heats.cpu().double(), total / count, acceptance).to(tempering.heats)
    tempering, ladders = tempering.on(heats, ladders)
    told(tempering)
    return tempering, ladders
