"""A molecule with its batched energy, its internal chart and its relaxed stiff coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from timewarp.energy import Bonded, Potential
from timewarp.flow.chart import InternalChart
from timewarp.flow.curvature import Curvature
from timewarp.flow.response import Response
from timewarp.flow.stiff import Stiff
from timewarp.flow.whitening import refined
from timewarp.kernel import Energy
from timewarp.mcmc.torsions import Torsions, TorsionState
from timewarp.state import Molecule, Positions

CONFORMERS = 32  # over which the curvature of the full energy is averaged in the last round, half of them before
DIFFERENCED = 16  # of them say what it is but for the pairs, and half of these before: more change no acceptance
WALKERS = 64
ROUNDS = (80, 20)  # torsion moves of each walker before the curvature is averaged (anew); 40 hot ones to begin with


@dataclass(frozen=True)
class Peptide:
    """One molecule ready to be sampled at one temperature.

    Attributes:
        molecule: atoms, graph and force field.
        potential: U/kT of a batch.
        temperature: K, of that energy.
        chart: positions <-> (torsions, whitened stiff coordinates).
        response: the relaxed stiff coordinates, given the torsions.
        stiff: their law about these.
        walkers: where the walk that made the chart ended, [walkers, atoms, 3], thermal but for what it had no time
            for; None where the chart was known.
    """

    molecule: Molecule
    potential: Energy
    temperature: float
    chart: InternalChart
    response: Response
    stiff: Stiff
    walkers: Positions | None = None

    @classmethod
    def of(
        cls,
        molecule: Molecule,
        temperature: float = 310.0,
        *,
        compiled: bool = False,
        potential: Energy | None = None,
        whitening: dict[str, Tensor] | None = None,
        seed: int = 0,
    ) -> Peptide:
        """Build the chart: bonded curvature, a short torsion walk from random angles, then the full curvature.

        Args:
            molecule: to be sampled.
            temperature: K.
            compiled: compile the energy.
            potential: U/kT to use, differentiable, in place of the batched potential of the molecule.
            whitening: what `chart.arrays()` gave earlier; the walk is then left out.
            seed: of the walk.
        """
        if potential is None:
            potential = Potential(molecule, temperature, compiled=compiled)
        bonded = None if whitening else Bonded(molecule, temperature)
        chart = InternalChart(molecule, bonded, whitening)
        stiff = _stiff(molecule, chart, potential, temperature)
        walkers = None
        if bonded and chart.torsions:
            rng = torch.Generator().manual_seed(seed)
            walk, state = Torsions(chart, Response(chart, potential, steps=2), potential), None
            for number, steps in enumerate(ROUNDS, 1):
                if state is None:
                    state = warm(walk, walk.begin(WALKERS, rng), steps, rng)
                else:
                    walk = Torsions(stiff.chart, Response(stiff.chart, potential, steps=2), potential)
                    state = warm(walk, walk.init(state.state), steps, rng, hottest=1.0)
                best = state.log_density.argsort(descending=True)[: WALKERS // 2]
                share = 1 if number == len(ROUNDS) else 2
                chosen = best[torch.randperm(len(best), generator=rng)[: -(-CONFORMERS // share)]]
                chart = refined(stiff, state.torsions[chosen], -(-DIFFERENCED // share))
                stiff = _stiff(molecule, chart, potential, temperature)
                good = state.log_density.isfinite()
                walkers = state.positions[good] if good.any() else None
        return cls(molecule, potential, temperature, stiff.chart, stiff.response, stiff, walkers)

    def on(self, device: torch.device | str) -> Peptide:
        """The same with its chart and all that follows from it on a device."""
        stiff = self.stiff.on(self.chart.to(device))
        walkers = None if self.walkers is None else self.walkers.to(device)
        return replace(self, chart=stiff.chart, response=stiff.response, stiff=stiff, walkers=walkers)

    @property
    def frame(self) -> Tensor:
        """The three atoms that carry the pose."""
        return self.chart.tree.order[:3]

    def same_hand(self, positions: Positions) -> Tensor:
        """Whether each configuration has the handedness and cis/trans of the prepared structure."""
        turns = self.chart.internal(positions)[..., 2]
        away = torch.cos(turns - self.chart.prepared[:, 2].to(turns.dtype))
        return ((away > 0) | ~self.chart.stiff[:, 2]).all(-1)

    def walk(self, steps: int = 1) -> Torsions:
        """Torsion moves of this peptide, exact at its temperature.

        One Newton step costs least. Two bring the noise near N(0, I) in crowded conformations too, which heated walks
        need: their rungs share the law of the noise (41 atoms: |noise|^2 exceeds its mean by 8 in place of 116).
        """
        damping = 1.0 if steps == 1 else 0.8
        response = Response(self.chart, self.potential, steps=steps, damping=damping, cap=3.0)
        return Torsions(self.chart, response, self.potential)


def _stiff(molecule: Molecule, chart: InternalChart, potential: Energy, temperature: float) -> Stiff:
    response = Response(chart, potential, steps=2, damping=0.8, cap=2.0)
    return Stiff(chart, response, Curvature(molecule, chart, temperature))


def warm(walk: Torsions, state: TorsionState, steps: int, rng: torch.Generator, hottest: float = 10.0) -> TorsionState:
    """Cool the walk from `hottest` times its temperature to its own over the first half of `steps`."""
    for step in range(steps):
        ramp = max(0.0, 1 - 2 * step / steps)
        state, _ = walk.heated(1 + (hottest - 1) * ramp * ramp).step(state, rng)
    return state
