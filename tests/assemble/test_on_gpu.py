"""Figures of a GPU, with `pytest -o addopts= -m long -s tests/assemble/test_on_gpu.py`: energies, tempering, proposals.

Each is checked against the CPU on the way.
"""

import time

import pytest
import torch

from timewarp.assemble.afar import together
from timewarp.assemble.costing import cost_of
from timewarp.assemble.data import loader
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.reference import prepared
from timewarp.energy import Potential
from timewarp.energy.pairs import evaluate
from timewarp.flow.factored import FactoredInternal
from timewarp.kernel import run
from timewarp.mcmc import Annealed
from timewarp.mcmc.captured import Captured
from timewarp.resources import checkpoint_path
from timewarp.training.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to measure"),
]
CHECKPOINT = Checkpoint.load(checkpoint_path("2aa").with_suffix(""))


def seconds(work, times):
    """Of one call, after two for what is set up."""
    for left in range(times + 2, 0, -1):
        if left == times:
            torch.cuda.synchronize()
            began = time.perf_counter()
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


@pytest.mark.parametrize("name", ["AA", "HT", "EHQW"])
def test_energies_a_second(name):
    molecule = loader(name)()
    potential, precise = Potential(molecule, device="cuda"), Potential(molecule, dtype=torch.float64)
    noise = torch.Generator().manual_seed(0)

    def around(count):
        return molecule.reference.float() + 5e-4 * torch.randn(count, molecule.atoms, 3, generator=noise)

    x = around(64)
    (energy, gradient), (right, slope) = potential.kilojoules(x.cuda(), True), precise.kilojoules(x.double(), True)
    off, turned = (energy.cpu() - right).abs().max(), (gradient.cpu() - slope).norm() / slope.norm()
    assert off < 1e-2
    assert turned < 1e-4
    print(
        f"\n{name}, {molecule.atoms} atoms, on {torch.cuda.get_device_name(0)}: off by {off:.1e} kJ/mol, {turned:.1e}"
    )
    for count in (256, 4096, 32768):
        x = around(count).cuda()
        alone, both = (seconds(lambda x=x, w=w: potential.kilojoules(x, w), 20) for w in (False, True))
        print(f"{count} at once: {count / alone:.3g} energies a second, {count / both:.3g} with forces")
    x = around(4096).cuda()
    plain = seconds(lambda: evaluate(x, potential.tables, True), 5)
    print(f"4096 at once in plain torch: {4096 / plain:.3g} with forces")


@pytest.mark.parametrize("name", ["AA", "PG", "EHQW"])
def test_a_round_of_tempering(name):
    peptide = Peptide.of(loader(name)(), 310.0).on("cuda")
    rng = torch.Generator("cuda").manual_seed(1)
    tempering, state = prepared(peptide, 1024, rng)
    for state, _ in run(tempering, state, 2, rng):  # noqa: B007, B020
        pass
    captured = Captured(tempering, state, rng)
    spent = seconds(captured, 50) / captured.steps
    found = captured.state
    right = Potential(peptide.molecule)(found.cold.positions.cpu()).double()
    assert (found.energy.cpu() - right).abs().max() < 1e-2
    print(f"\n{name}: {1e3 * spent:.2f} ms for a round of 1024 ladders with {len(tempering.heats)} rungs")


@pytest.mark.parametrize("name", ["AA", "HT", "PG", "EHQW"])
def test_proposals(name):
    molecule = loader(name)()
    potential = Potential(molecule, device="cuda")
    peptide = Peptide.of(molecule, 310.0, potential=potential)
    here, there = (
        Annealed(potential, FactoredInternal(bound(load_flow(CHECKPOINT).to(device), peptide)), 0, 100)
        for device in ("cpu", "cuda")
    )
    (positions, energy, log_net), expected = (
        (part.cpu() for part in there.draws(400, 3).parts),
        here.draws(400, 3).parts,
    )
    same = ((positions - expected[0]).abs().amax((1, 2)) < 1e-3).double().mean()
    given, noise = here.proposal.given(positions)
    again = -energy - here.backward(given, noise, torch.Generator())
    off = (again - log_net).abs()
    assert off.quantile(0.99) < 1e-2
    cost = cost_of(load_flow(CHECKPOINT).cuda(), molecule, potential, peptide.chart.arrays(), 4)
    parts = ", ".join(f"{part} {cost[part]:.0%}" for part in ("flow", "chart", "energy"))
    print(
        f"\n{name}: {cost['milliseconds']:.4f} ms a proposal, {together(molecule.atoms, 4)} at once ({parts}); "
        f"{same:.1%} are the CPU's of the same seed, densities off by {off.max():.1e} at most"
    )
