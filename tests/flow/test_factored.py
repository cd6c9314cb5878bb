"""The internal flow as two factors is the same density, the same positions and the same energy."""

import pytest
import torch

from timewarp.energy import Potential
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import InternalConfig
from timewarp.kernel import Factored, Regrowing, run
from timewarp.mcmc import Annealed, Crew, Independence, Regrowth, annealed
from timewarp.state import State

from .molecules import chart_of, flow_of, molecule_of, proposal_of, shaken


def proposal(**how):
    return proposal_of(molecule_of("AA"), chart_of("AA", torch.float64), flow_of(torch.float64, **how), torch.float64)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(e):
    return (-0.5 * e.square() - 0.9189385332046727).sum(-1)


@torch.no_grad()
def test_the_factors_are_the_density_and_what_is_drawn_is_found_again():
    whole = proposal()
    factored = FactoredInternal(whole)
    assert isinstance(factored, Factored)
    drawn = factored.draw(40, seeded(0))
    noise = torch.randn(40, factored.noises, generator=seeded(1), dtype=torch.float64)
    at = factored.placed(drawn, noise)
    off = (drawn.log_prob + normal(noise) + at.log_det - whole.density(at.positions, at.positions[..., :0])).abs()
    assert off.median() < 1e-7
    assert (off < 1e-4).double().mean() > 0.9  # but where a clash makes mu(tau) a cliff
    again, found = factored.given(at.positions)
    torch.testing.assert_close(again.torsions, drawn.torsions)
    assert (found - noise).abs().amax(1).median() < 1e-6
    assert (again.log_prob - drawn.log_prob).abs().max() < 1e-6


@torch.no_grad()
def test_what_is_placed_has_its_energy():
    factored = FactoredInternal(proposal())
    energy = Potential(molecule_of("AA"), dtype=torch.float64)
    given, noise = factored.given(shaken(molecule_of("AA"), 3, 0))
    at = factored.placed(given, noise)
    torch.testing.assert_close(at.energy, energy(at.positions))
    x, log_det = factored.chart.inverse(*factored.chart.forward(at.positions)[:2])
    torch.testing.assert_close(x, at.positions)
    stretch = factored.proposal.stiff.push(given.basin, noise)[1]
    torch.testing.assert_close(at.log_det, log_det - stretch)


@torch.no_grad()
def test_every_evaluation_of_the_energy_is_counted():
    factored = FactoredInternal(proposal())
    response, calls = factored.proposal.stiff.response, []
    energy = response.energy

    def counted(x):
        calls.append(len(x))
        return energy(x)

    response.energy = counted
    before = factored.asked
    given = factored.draw(7, seeded(0))
    assert sum(calls) >= 7 * factored.cost[0]  # some may have to go on
    assert factored.asked - before == sum(calls)
    calls.clear()
    factored.placed(given, torch.zeros(7, factored.noises, dtype=torch.float64))
    assert sum(calls) == 7 * factored.cost[1]


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda p, u: Annealed(u, FactoredInternal(p), 1, 8, particles=2), None])
def test_a_chain_says_what_it_asked_the_energy_for(make):
    """All of it: what goes on, the probes of lopsided directions, the present's own path."""
    flow, calls = proposal(), []
    energy = Potential(molecule_of("AA"), dtype=torch.float64)

    def counted(x):
        calls.append(x[..., 0, 0].numel())
        return energy(x)

    flow.stiff.response.energy = counted
    kernel = make(flow, counted) if make else Independence(counted, flow, 8)
    state, spent = kernel.init(State.at(molecule_of("AA").reference.expand(3, -1, -1).double())), 0
    calls.clear()
    for _, info in run(kernel, state, 20, seeded(1)):
        spent += info["evaluations"]
    assert spent == sum(calls)


@torch.no_grad()
def test_annealed_chains_of_a_molecule_know_their_energies():
    energy = Potential(molecule_of("AA"), dtype=torch.float64)
    start = molecule_of("AA").reference.expand(10, -1, -1).double()
    kernel = Annealed(energy, FactoredInternal(proposal(spread=0.0)), 3, 8)
    accepted = 0
    for queue, info in run(kernel, kernel.init(State.at(start)), 20, seeded(3)):
        accepted += int(info["accepted"].sum())
        torch.testing.assert_close(queue.energy, energy(queue.state.positions))
    assert accepted > 0


def test_velocity_channels_are_refused():
    coupled = InternalConfig(
        width=8, heads=2, encoder_layers=1, torsion_layers=1,
        velocities=1, velocity_width=8, velocity_heads=2, velocity_layers=1, velocity_blocks=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="without velocity channels, got 1"):
        FactoredInternal(proposal(config=coupled))


@torch.no_grad()
def test_what_is_regrown_keeps_the_first_torsions_of_its_row_and_is_found_again():
    factored = FactoredInternal(proposal())
    assert isinstance(factored, Regrowing)
    present = factored.draw(6, seeded(0)).torsions
    rows = torch.arange(24) % 6
    for kept in (1, factored.parts):
        drawn = factored.regrown(present, kept, rows, seeded(1))
        assert torch.equal(drawn.torsions[:, :kept], present[rows, :kept])
        assert (drawn.torsions[:, kept:] != present[rows, kept:]).all()
        at = factored.placed(drawn, torch.zeros(24, factored.noises, dtype=torch.float64))
        again, _ = factored.given(at.positions, kept)
        torch.testing.assert_close(again.torsions, drawn.torsions)
        assert (again.log_prob - drawn.log_prob).abs().max() < 1e-6
        whole, _ = factored.given(at.positions)
        assert (whole.log_prob - drawn.log_prob).abs().min() > 1e-3


@torch.no_grad()
def test_chains_of_a_real_flow_are_the_same_with_any_number_of_cores(monkeypatch):
    monkeypatch.setattr(annealed, "side_by_side", lambda atoms: 16)
    energy, found = Potential(molecule_of("AA"), 310.0, dtype=torch.float64), []
    for cores in (1, 3):
        factored = FactoredInternal(proposal())
        x = factored.placed(*parted(factored)).positions
        with Crew(cores) as crew:
            kernels = Annealed(energy, factored, 0, 8, particles=2, crew=crew), Regrowth(energy, factored, 0, 8)
            positions = []
            for made in kernels:
                state, evaluations = made.init(State.at(x, 0)), 0
                for state, info in run(made, state, 10, seeded(3)):  # noqa: B007, B020
                    evaluations += info["evaluations"]
                positions += [state.state.positions, torch.tensor(evaluations)]
        found.append(positions)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def parted(factored):
    return factored.draw(6, seeded(0)), torch.zeros(6, factored.noises, dtype=torch.float64)
