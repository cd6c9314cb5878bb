"""Annealed independence sampling: proposals relax towards the target before they are tested.

A memoryless flow draws torsions tau ~ q(tau) and noise e ~ N(0, I) of the stiff coordinates about them. What it gets
wrong of these spreads the weights and is refused. Here e goes on from its draw through K states between the Gaussian
and the target, the torsions held, and the weight of the whole path takes the place of that of its end (annealed
importance sampling, Neal 2001; a nonequilibrium candidate, Nilmeier et al. 2011). Its logarithm spreads by about
1/sqrt(K + 1) as much.

| symbol | variable |
|---|---|
| q(tau) | given |
| e | noise |
| S(tau, e) = U/kT + ln |d(tau, e)/dx| | proposal.placed |
| R(e) = S(tau, e) + ln N(e; 0, I) | residual |
| lambda_0 = 0 < lambda_1 < ... < lambda_K < lambda_(K+1) = 1 | shares |
| pi_k(e), unnormalised: N(e; 0, I) exp(-lambda_k R(e)) | |
| T_k, reversible with respect to pi_k | split.turned |
| W | log_weight |
| ln q_W(x) = -U/kT - ln W | log_net |

Forward, for a proposal:   e_0 ~ N(0, I); for k = 1 ... K: e_k ~ T_k(e_(k-1) -> .); the end e_K is proposed.
Backward, for a present:   e_K is its own; for k = K ... 1: e_(k-1) ~ T_k(e_k -> .), as T_k is its own reversal.
Either way                 ln W = -ln q(tau) - sum_(k = 0 ... K) (lambda_(k+1) - lambda_k) R(e_k),
                           alpha = min(1, W'/W).

For q(tau) N(e_0) prod T_k(e_(k-1) -> e_k) is what the path was drawn with, and exp(-S(tau, e_K)) prod
T_k(e_k -> e_(k-1)) a law whose marginal at the end is the target: by detailed balance W is the second over the first.
So the chain on pairs of an end and a path is independence Metropolis-Hastings, and exact. With M particles there are M
paths at the same torsions, of which the one that is proposed is picked by its weight; the mean of their weights takes
the place of W, in which most of what the law of e gets wrong averages out (particle independent Metropolis-Hastings,
Andrieu, Doucet and Holenstein 2010). The paths that were not picked belong to what is proposed, as the path to its end
does: given an end and its own path, M - 1 others are drawn forward. Given the end, its path may
be drawn anew at any time that no state decides; this is done where another kernel has moved the end, and whenever
proposals are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.kernel import Energy, Factored, Given
from timewarp.mcmc import accept
from timewarp.mcmc.chain import Chain, single_test
from timewarp.mcmc.counter import Counter
from timewarp.mcmc.crew import Drawers, Drawn
from timewarp.mcmc.independence import NONE, Queue
from timewarp.mcmc.split import Noise, Point, Residual, turned
from timewarp.state import Positions, State

FEWEST, MOST = 512, 2048  # paths side by side
CACHED = 48_000  # atoms of them, as many as the cache holds
LN_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Annealed:
    """Exact kernel for a `Factored` proposal; each step tests one proposal in each chain.

    Proposals wait in a `Queue`, whose `log_net` is ln q_W along the path of each, NaN for a present whose path is yet
    to be drawn. Positions are left in the frame of `proposal.placed`: no energy sees the pose.

    Attributes:
        energy: U/kT of a batch.
        proposal: q(tau) and what carries e to x.
        stages: K; with 0 this is independence sampling.
        width: proposals drawn at once, for each chain.
        angle: theta of the transitions, 0 < theta <= pi/2.
        particles: M, paths at the same torsions.
        crew: other cores that draw proposals, or a GPU; the chains are the same with any number of cores.
        together: proposals drawn at once, of all chains; by default as many as a CPU's cache holds.
    """

    energy: Energy
    proposal: Factored
    stages: int = 4
    width: int = 128
    angle: float = 0.3 * math.pi
    particles: int = 1
    crew: Drawers | None = None
    together: int | None = None

    exact: ClassVar[bool] = True
    max_tests: ClassVar[int] = 1

    def __post_init__(self):
        if self.stages < 0 or not 0 < self.angle <= math.pi / 2 or min(self.width, self.particles) < 1:
            raise ValueError(
                "expected stages >= 0, a width of at least 1 proposal, 0 < angle <= pi/2 and at least 1 particle, "
                f"got {self.stages}, {self.width}, {self.angle}, {self.particles}"
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """lambda_0 ... lambda_(K+1)."""
        return tuple(k / (self.stages + 1) for k in range(self.stages + 2))

    @property
    def cost(self) -> int:
        """Energy evaluations of a path, at least."""
        given, placed = self.proposal.cost
        return given + placed * (self.stages + 1) * self.particles

    def init(self, state: State) -> Queue:
        """The chains at their beginning, with an empty queue; their paths are drawn in the first step.

        Raises:
            ValueError: if the state is not a batch of finite positions with finite energies and densities.
        """
        present = Chain.at(self.energy, state, 0)
        given, noise = self.proposal.given(present.state.positions)
        density = given.log_prob - self._residual(given)(noise).residual
        accept.require_finite("the proposal's density of the initial state", density, "minimise the structure first")
        positions, velocities = (
            t.expand(self.width, *t.shape).clone() for t in (present.state.positions, present.state.velocities)
        )
        unknown = torch.full_like(present.energy, torch.nan)
        empty = unknown.expand(self.width, -1).clone()
        return Queue(present, unknown, State(positions, velocities), empty, empty, self.width)

    def restore(self, tensors: dict[str, Tensor]) -> Queue:
        """The inverse of `Queue.tensors`."""
        return Queue.from_tensors(tensors)

    def moved(self, queue: Queue, positions: Positions, energy: Float[Tensor, " chains"]) -> tuple[Queue, int]:
        """The chains at positions that another kernel led to; their paths are drawn in the next step."""
        unknown = torch.full_like(queue.log_net, torch.nan)
        return replace(queue, present=queue.present.moved(positions, energy), log_net=unknown), 0

    @torch.no_grad()
    def step(self, queue: Queue, rng: torch.Generator) -> tuple[Queue, dict[str, Any]]:
        """One test in each chain."""
        usual, counter, elsewhere = 0, Counter(self.proposal), 0
        if queue.next >= self.width:
            queue, elsewhere = self._filled(queue, rng)
            usual += self.cost * queue.energy_waiting.numel()
        if queue.log_net.isnan().any():
            queue = replace(queue, log_net=self._of_present(queue.present, queue.kept, rng))
            usual += self.cost * len(queue.log_net)
        evaluations = counter.spent(usual) + elsewhere
        k, present = queue.next, queue.present
        energy, log_net = queue.energy_waiting[k], queue.log_net_waiting[k]
        accepted = accept.metropolis(present.energy, energy, queue.log_net - log_net, rng)
        refused = replace(queue, next=k + 1)
        present = Chain(queue.waiting[k].where(accepted, present.state), torch.where(accepted, energy, present.energy))
        log_net = torch.where(accepted, log_net, queue.log_net)
        queue = replace(queue, present=present, log_net=log_net, next=k + 1)
        return queue, single_test(accepted, present.energy, evaluations, refused)

    def forward(self, given: Given, rng: torch.Generator) -> tuple[Positions, Tensor, Tensor]:
        """Paths from the Gaussian towards the target: (positions, U/kT, ln W) at the ends of those that are picked."""
        if self.particles == 1:
            return self._path(given, rng)
        positions, energy, log_weight = self.paths(given, self.particles, rng)
        share = torch.softmax(log_weight - log_weight.max(0).values, 0).nan_to_num(1.0)
        pick = torch.multinomial(share.T.to(rng.device), 1, generator=rng)[:, 0].to(share.device)
        rows = torch.arange(len(pick), device=pick.device)
        return positions[pick, rows], energy[pick, rows], _log_mean(log_weight)

    def paths(self, given: Given, count: int, rng: torch.Generator) -> tuple[Positions, Tensor, Tensor]:
        """(positions, U/kT, ln W) at the ends of `count` paths for each of the torsions, [count, torsions, ...]."""
        found = self._path(_repeated(given, count), rng)
        positions, energy, log_weight = (part.unflatten(0, (count, -1)) for part in found)
        return positions, energy, log_weight

    def _path(self, given: Given, rng: torch.Generator) -> tuple[Positions, Tensor, Tensor]:
        residual, shares = self._residual(given), self.shares
        point = residual(_normal(given.torsions, self.proposal.noises, rng))
        log_weight = -given.log_prob.double() - (shares[1] - shares[0]) * point.residual
        for k in range(1, self.stages + 1):
            point, _ = turned(residual, point, shares[k], self.angle, rng)
            log_weight = log_weight - (shares[k + 1] - shares[k]) * point.residual
        positions, energy = point.known
        return positions, energy, log_weight

    def backward(self, given: Given, noise: Noise, rng: torch.Generator) -> Tensor:
        """ln W of paths that end at e = `noise`, and of others beside them."""
        if self.particles == 1:
            return self._path_to(given, noise, rng)
        if not self.stages:  # paths of one point, own and others at once
            given = _repeated(given, self.particles)
            fresh = _normal(given.torsions[len(noise) :], self.proposal.noises, rng)
            log_weight = -given.log_prob.double() - self._residual(given)(torch.cat([noise, fresh])).residual
            return _log_mean(log_weight.unflatten(0, (self.particles, -1)))
        own = self._path_to(given, noise, rng)
        others = self.paths(given, self.particles - 1, rng)[2]
        return _log_mean(torch.cat([own[None], others]))

    def _path_to(self, given: Given, noise: Noise, rng: torch.Generator) -> Tensor:
        residual, shares = self._residual(given), self.shares
        point = residual(noise)
        log_weight = -given.log_prob.double()
        for k in range(self.stages, 0, -1):
            log_weight = log_weight - (shares[k + 1] - shares[k]) * point.residual
            point, _ = turned(residual, point, shares[k], self.angle, rng)
        return log_weight - (shares[1] - shares[0]) * point.residual

    def _residual(self, given: Given) -> Residual:
        def residual(noise: Noise) -> Point:
            at = self.proposal.placed(given, noise)
            value = at.energy + at.log_det - (0.5 * noise.double().square() + 0.5 * LN_2PI).sum(-1)
            value = value.nan_to_num(torch.inf, torch.inf, torch.inf)
            return Point(noise, value, at.gradient - noise, (at.positions, at.energy))

        return residual

    def _filled(self, queue: Queue, rng: torch.Generator) -> tuple[Queue, int]:
        """The queue with proposals, and the evaluations that others made for it.

        The seeds of those after them are drawn too, so that a crew may begin.
        """
        counts = [len(rows) for rows in self._rows(queue)]
        seeds = queue.seeds.tolist() if len(queue.seeds) == len(counts) else _seeds(len(counts), rng).tolist()
        jobs, after = list(zip(counts, seeds, strict=True)), _seeds(len(counts), rng)
        if self.crew is None:
            found = [self.draws(*job) for job in jobs]
            elsewhere = 0
        else:
            before = Counter(self.proposal)
            found = self.crew.drawn(self, jobs)
            elsewhere = sum(part.asked for part in found) - before.spent(0)
            self.crew.expect(self, list(zip(counts, after.tolist(), strict=True)))
        return self._waiting(queue, [part.parts for part in found], seeds=after), elsewhere

    @torch.no_grad()
    def draws(self, count: int, seed: int) -> Drawn:
        """(positions, U/kT, ln q_W) of so many proposals."""
        before, rng = Counter(self.proposal), torch.Generator().manual_seed(seed)
        found = self._weighed(self.proposal.draw(count, rng), rng)
        return Drawn(found, before.spent(0))

    def _rows(self, queue: Queue) -> tuple[Tensor, ...]:
        """The numbers of all proposals, as many together as are drawn at once, whatever the number of cores."""
        paths = side_by_side(queue.waiting.positions.shape[-2])
        together = self.together or max(1, paths // self.particles)
        return torch.arange(queue.energy_waiting.numel()).split(together)

    def _waiting(self, queue: Queue, found: Sequence[tuple[Tensor, ...]], kept: int = 0, seeds: Tensor = NONE) -> Queue:
        """The queue with these proposals, (positions, U/kT, ln q_W) of some rows after others."""
        shape, state = queue.energy_waiting.shape, queue.waiting
        positions, energy, log_net = (torch.cat(part) for part in zip(*found, strict=True))
        waiting = State(positions.view_as(state.positions), state.velocities)
        unknown = torch.full_like(queue.log_net, torch.nan)
        present = queue.present
        return Queue(present, unknown, waiting, energy.view(shape), log_net.view(shape), 0, kept, seeds)

    def _weighed(self, given: Given, rng: torch.Generator) -> tuple[Positions, Tensor, Tensor]:
        positions, energy, log_weight = self.forward(given, rng)
        return positions, energy, -energy - log_weight

    def _of_present(self, present: Chain, kept: int, rng: torch.Generator) -> Float[Tensor, " chains"]:
        given, noise = self.proposal.given(present.state.positions)
        return -present.energy - self.backward(given, noise, rng)


def side_by_side(atoms: int) -> int:
    """Paths of a molecule of so many atoms that are drawn at once."""
    return min(max(CACHED // atoms, FEWEST), MOST)


def _normal(like: Tensor, count: int, rng: torch.Generator) -> Noise:
    shape = (len(like), count)
    return torch.randn(shape, generator=rng, dtype=like.dtype, device=rng.device).to(like.device)


def _seeds(count: int, rng: torch.Generator) -> Tensor:
    return torch.randint(2**62, (count,), generator=rng, device=rng.device).cpu()


def _repeated(given: Given, count: int) -> Given:
    """The torsions `count` times over, one whole block after another."""
    parts = (given.torsions, given.log_prob, *given.basin)
    torsions, log_prob, *basin = (part.repeat(count, *[1] * (part.ndim - 1)) for part in parts)
    return Given(torsions, log_prob, tuple(basin))


def _log_mean(log_weight: Tensor) -> Tensor:
    """ln of the mean of weights over the first axis; of none that is finite, that of the largest."""
    return log_weight.logsumexp(0) - math.log(len(log_weight))
