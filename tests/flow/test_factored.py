"""The internal flow as two factors is the same density, the same positions and the same energy."""

import pytest
import torch

from timewarp.energy import Potential
from timewarp.flow.factored import FactoredInternal
from timewarp.flow.internal import InternalConfig
from timewarp.kernel import Factored, run
from timewarp.mcmc import Annealed
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
    noise = torch.randn(drawn.centre.shape, generator=seeded(1), dtype=torch.float64)
    positions, log_det = factored.place(drawn.torsions, drawn.centre + drawn.scale * noise)
    log_prob = drawn.log_prob + (normal(noise) - drawn.scale.log().sum(-1)) + log_det
    off = (log_prob - whole.density(positions, positions[..., :0])).abs()
    assert off.median() < 1e-7
    assert (off < 1e-4).double().mean() > 0.9  # but where a clash makes mu(tau) a cliff
    again, stiff = factored.given(positions)
    torch.testing.assert_close(again.torsions, drawn.torsions)
    torch.testing.assert_close(stiff, drawn.centre + drawn.scale * noise)
    assert (again.log_prob - drawn.log_prob).abs().max() < 1e-6


@torch.no_grad()
def test_the_slope_is_that_of_energy_and_volume():
    factored = FactoredInternal(proposal())
    energy = Potential(molecule_of("AA"), dtype=torch.float64)
    given, z = factored.given(shaken(molecule_of("AA"), 3, 0))
    value, slope = factored.slope(given.torsions, z)
    positions, log_det = factored.place(given.torsions, z)
    torch.testing.assert_close(value, energy(positions) + log_det)
    step = 1e-5 * torch.randn(z.shape, generator=seeded(2), dtype=torch.float64)
    up, down = (factored.slope(given.torsions, z + s * step)[0] for s in (1, -1))
    torch.testing.assert_close((up - down) / 2, (slope * step).sum(-1), rtol=1e-4, atol=1e-9)


@torch.no_grad()
def test_annealed_chains_of_a_molecule_know_their_energies():
    energy = Potential(molecule_of("AA"), dtype=torch.float64)
    start = molecule_of("AA").reference.expand(3, -1, -1).double()
    kernel = Annealed(energy, FactoredInternal(proposal(spread=0.0)), 3, 16)
    accepted = 0
    for queue, info in run(kernel, kernel.init(State.at(start)), 32, seeded(3)):
        accepted += int(info["accepted"].sum())
        torch.testing.assert_close(queue.energy, energy(queue.state.positions))
    assert accepted > 0


def test_velocity_channels_are_refused():
    coupled = InternalConfig(
        width=8, heads=2, encoder_layers=1, torsion_layers=1, stiff_width=8, stiff_heads=2, stiff_layers=1,
        velocities=1, velocity_width=8, velocity_heads=2, velocity_layers=1, velocity_blocks=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="without velocity channels, got 1"):
        FactoredInternal(proposal(config=coupled))
