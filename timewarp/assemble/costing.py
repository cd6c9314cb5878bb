"""What a proposal takes on this machine, and how much of it is the flow's, the chart's and the energy's."""

from __future__ import annotations

import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from timewarp.assemble.afar import together
from timewarp.assemble.flows import bound
from timewarp.assemble.kernels import flow_kernel, undivided
from timewarp.assemble.peptide import Peptide
from timewarp.energy import Potential
from timewarp.kernel import Given
from timewarp.mcmc import Annealed
from timewarp.mcmc.annealed import side_by_side
from timewarp.state import Molecule, Positions, State

LEAST = 2.0  # s
CHAINS = 10  # of a flow whose proposals depend on the present


class Timed:
    """A potential that knows for how long it was asked.

    Attributes:
        potential: the one that is asked.
        seconds: so far.
    """

    def __init__(self, potential: Potential):
        self.potential, self.seconds = potential, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.potential, name)

    def __call__(self, positions: Positions) -> Float[Tensor, "*batch"]:
        """U/kT."""
        return self._timed(self.potential, positions)

    def slope(self, positions: Positions) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch atoms 3"]]:
        """(U/kT, its gradient in 1/nm)."""
        return self._timed(self.potential.slope, positions)

    def _timed(self, call, positions: Positions) -> Any:
        began = now(positions.device)
        found = call(positions)
        self.seconds += now(positions.device) - began
        return found


def now(device: torch.device) -> float:
    """Seconds of a clock, once the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cost_of(
    flow, molecule: Molecule, potential: Potential, whitening: dict[str, Tensor] | None, particles: int,
    least: float = LEAST,
) -> dict[str, float]:  # fmt: skip
    """Wall-clock cost of proposals, made as `timewarp sample` makes them, on one core or the flow's GPU.

    Args:
        flow: the networks.
        molecule: to be sampled.
        potential: of it, on the flow's device.
        whitening: of its chart, if known.
        particles: draws of bonds and angles for each proposal.
        least: seconds to measure for, after as long a batch as is needed to warm up.

    Returns:
        `milliseconds` a proposal, and the shares of it that `flow`, `chart` and `energy` take. The flow's has the
        energies that it is told before each torsion in it; the chart's is all geometry, with the curvature and the
        law of the stiff coordinates.
    """
    timed = Timed(potential)
    with undivided():
        peptide = Peptide.of(molecule, potential.temperature, potential=timed, whitening=whitening)
        proposal = bound(flow, peptide)
        device = next(flow.parameters()).device
        rng = torch.Generator(device).manual_seed(0)
        kernel = flow_kernel(peptide, proposal, 0, 100, particles)
        whole = isinstance(kernel, Annealed)
        gpu = device.type == "cuda"
        count = together(molecule.atoms, particles) if gpu else side_by_side(molecule.atoms) // particles
        make = _drawn(kernel, count) if whole else _walked(kernel, peptide, device)
        make(rng)
        timed.seconds, made, of_flow = 0.0, 0, 0.0
        began = now(device)
        while (spent := now(device) - began) < least:
            count, seconds = make(rng)
            made, of_flow = made + count, of_flow + seconds
    if not whole:
        of_flow = spent - timed.seconds  # in Cartesian coordinates there is no chart
    shares = {"flow": of_flow / spent, "energy": timed.seconds / spent}
    return {"milliseconds": 1000 * spent / made, **shares, "chart": max(0.0, 1 - sum(shares.values()))}


def _drawn(kernel: Annealed, count: int):
    proposal, device = kernel.proposal.proposal, kernel.proposal.chart.root.device  # type: ignore[attr-defined]

    @torch.no_grad()
    def make(rng: torch.Generator) -> tuple[int, float]:
        began = now(device)
        torsions, log_prob = proposal.torsions(count, rng)
        spent = now(device) - began
        kernel.forward(Given(torsions, log_prob, proposal.stiff.at(torsions)), rng)
        return count, spent

    return make


def _walked(kernel, peptide: Peptide, device: torch.device):
    start = peptide.molecule.reference.float().to(device).expand(CHAINS, -1, -1).clone()
    channels = kernel.proposal.channels
    state = kernel.init(State.at(start, channels, torch.Generator(device).manual_seed(0)))

    def make(rng: torch.Generator) -> tuple[int, float]:
        nonlocal state
        state, _ = kernel.step(state, rng)
        return CHAINS, 0.0

    return make
