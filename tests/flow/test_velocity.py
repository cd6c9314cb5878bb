"""Laws of the velocity channels: a density on chart and velocities, its samples, and what leaves them unchanged."""

from dataclasses import fields, replace
from functools import cache

import pytest
import torch

from timewarp.energy import Bonded
from timewarp.flow.chart import InternalChart
from timewarp.flow.internal import Internal, InternalConfig, InternalProposal
from timewarp.flow.tokens import Tokens, pad_stack, stacked
from timewarp.flow.velocity import Coordinates
from timewarp.md.export import export
from timewarp.md.system import prepare_sequence
from timewarp.state import State

from .molecules import stiff_of

TINY = InternalConfig(
    width=16, heads=2, encoder_layers=1, torsion_layers=1, harmonics=3,
    velocities=2, velocity_width=8, velocity_heads=2, velocity_blocks=2,
)  # fmt: skip


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def stirred(config=TINY, strength=0.15):
    """A flow in float64 that is far from its untrained self."""
    torch.manual_seed(0)
    flow, rng = Internal(config).double(), seeded(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return flow


def doubled(tokens):
    values = {f.name: getattr(tokens, f.name) for f in fields(tokens)}
    return Tokens(**{k: v.double() if v.is_floating_point() else v for k, v in values.items()})


@cache
def molecule(sequence):
    prepared = prepare_sequence(sequence)
    return export(prepared.topology, prepared.system, prepared.positions)


def chart_of(molecule):
    return InternalChart(molecule, Bonded(molecule, 310.0), dtype=torch.float64)


@cache
def chart(sequence):
    return chart_of(molecule(sequence))


def bind(flow, molecule, chart):
    return InternalProposal(flow, doubled(Tokens.of(molecule, chart, 310.0)), stiff_of(molecule, chart, torch.float64))


def proposal(flow, sequence="GG"):
    return bind(flow, molecule(sequence), chart(sequence))


def anywhere(bound, count, seed=2):
    """Coordinates that are zero where they have to be."""
    rng, c = seeded(seed), bound.chart
    shape = {"generator": rng, "dtype": torch.float64}
    torsions = 6 * torch.rand(count, c.torsions, **shape) - 3
    noise = torch.where(c.stiff, torch.randn(count, c.atoms, 3, **shape), 0.0)
    return Coordinates(torsions, noise, torch.randn(count, c.atoms, bound.channels, **shape))


def test_pull_undoes_push_with_the_same_log_det():
    bound = proposal(stirred())
    before = anywhere(bound, 7)
    after, pushed = bound.flow.velocity.push(bound.tokens, bound.atoms, before)
    found, pulled = bound.flow.velocity.pull(bound.tokens, bound.atoms, after)
    torch.testing.assert_close(pulled, pushed)
    for there, back, moved in zip(before, found, after, strict=True):
        torch.testing.assert_close(back, there)
        assert (moved - there).abs().max() > 0.02


def test_the_log_det_is_autograds():
    bound = proposal(stirred())
    before, stiff = anywhere(bound, 1), bound.chart.stiff

    def flat(at):
        return torch.cat([at.torsions[0], at.noise[0][stiff], at.velocities[0].flatten()])

    def push(z):
        t, n = bound.chart.torsions, bound.chart.stiffs
        noise = torch.zeros(stiff.shape, dtype=z.dtype).masked_scatter(stiff, z[t : t + n])
        at = Coordinates(z[None, :t], noise[None], z[t + n :].view(1, bound.chart.atoms, -1))
        return flat(bound.flow.velocity.push(bound.tokens, bound.atoms, at)[0])

    jacobian = torch.autograd.functional.jacobian(push, flat(before))
    _, pushed = bound.flow.velocity.push(bound.tokens, bound.atoms, before)
    assert pushed.abs() > 0.02
    torch.testing.assert_close(pushed[0], torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize("channels", [0, 2])
def test_the_density_is_that_of_the_base_over_autograds_determinant(channels):
    bound = proposal(stirred(replace(TINY, velocities=channels)))
    flow, c, tokens, atoms = bound.flow, bound.chart, bound.tokens, bound.atoms.detach()
    at = anywhere(bound, 1)
    base = torch.cat([torch.full((c.torsions,), 0.3).double(), at.noise[0][c.stiff], at.velocities[0].flatten()])

    def whole(z):
        white = torch.zeros(c.stiff.shape, dtype=z.dtype).masked_scatter(c.stiff, z[c.torsions :][: c.stiffs])
        v = z[c.torsions + c.stiffs :].view(1, c.atoms, channels)
        torsions, _ = flow.torsion.sample(tokens, atoms, z[None, : c.torsions])
        torsions, white, v = flow.coupled(tokens, atoms, Coordinates(torsions, white[None], v))[0] if channels else (
            torsions, white[None], v)  # fmt: skip
        return torch.cat([torsions[0], white[0][c.stiff], v.flatten()])

    end = whole(base).detach()
    noise = torch.zeros(c.stiff.shape, dtype=end.dtype).masked_scatter(c.stiff, end[c.torsions :][: c.stiffs])[None]
    torsions, v = end[None, : c.torsions], end[c.torsions + c.stiffs :].view(1, c.atoms, channels)
    found = sum(flow.parts(tokens, atoms, torsions, None, noise, v).values())
    seen = base[c.torsions :] if channels else base[:0]  # without couplings the noise is not the networks'
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(seen).sum()
    log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(whole, base)).logabsdet
    torch.testing.assert_close(found[0], normal - log_det, atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_the_density_of_a_sample_is_the_one_returned_with_it(channels):
    bound = proposal(stirred(replace(TINY, velocities=channels)))
    transition = bound(molecule("GG").reference[None])
    with torch.no_grad():
        state, log_prob = transition.sample(6, seeded(3))
        again = transition.log_prob(state)
    assert state.velocities.shape == (6, 1, 17, channels)
    torch.testing.assert_close(again, log_prob, atol=1e-6, rtol=0)


def test_the_trained_likelihood_is_the_density_of_the_proposal():
    flow, sequences = stirred(), ("GG", "AS")
    bounds = [proposal(flow, s) for s in sequences]
    parts, densities = [], []
    for bound in bounds:
        at, c = anywhere(bound, 4), bound.chart
        stiff, stretch = bound.stiff.push(bound.stiff.at(at.torsions), at.noise[:, c.stiff])
        positions, log_det = c.inverse(at.torsions, stiff)
        with torch.no_grad():
            densities.append(bound.density(positions, at.velocities[:, c.back]) - log_det + stretch)
        parts.append((at.torsions, at.noise, at.velocities))
    torsions, noise, velocities = (pad_stack(list(part)) for part in zip(*parts, strict=True))
    found = flow.log_prob(stacked([b.tokens for b in bounds]), torsions, None, noise, velocities)
    total = (found["torsion"] + found["rest"]).detach()
    assert (total - torch.stack(densities)).abs().median() < 1e-6  # but where a clash makes mu(tau) a cliff


def test_permuting_the_atoms_permutes_the_density():
    flow, own = stirred(), molecule("GG")
    order = torch.randperm(own.atoms, generator=seeded(4))
    other = own.permuted(order)
    first, second = proposal(flow), bind(flow, other, chart_of(other))
    with torch.no_grad():
        state, log_prob = first(own.reference[None]).sample(5, seeded(5))
        moved = State(state.positions[:, :, order], state.velocities[:, :, order])
        permuted = second(other.reference[None]).log_prob(moved)
    torch.testing.assert_close(permuted, log_prob, atol=1e-5, rtol=0)


def test_the_density_is_memoryless():
    bound = proposal(stirred())
    x = molecule("GG").reference[None]
    with torch.no_grad():
        state, log_prob = bound(x).sample(3, seeded(6))
        there = bound(state.positions[0] + 1.0).log_prob(state)
    torch.testing.assert_close(there, log_prob, atol=1e-6, rtol=0)


def test_untrained_the_velocities_are_independent_and_change_nothing():
    torch.manual_seed(0)
    bound = proposal(Internal(TINY).double())
    without = proposal(Internal(replace(TINY, velocities=0)).double())
    without.flow.load_state_dict({k: v for k, v in bound.flow.state_dict().items() if not k.startswith("velocity.")})
    at = anywhere(bound, 4)
    positions, _ = bound.chart.inverse(at.torsions, at.noise[:, bound.chart.stiff])
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(at.velocities).sum((1, 2))
    with torch.no_grad():
        alone = without.density(positions, at.velocities[..., :0])
        torch.testing.assert_close(bound.density(positions, at.velocities), alone + normal)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected 0 to 3 velocity channels for the internal flow, got 4"):
        InternalConfig(velocities=4)
    bound = proposal(stirred())
    x = molecule("GG").reference[None]
    with pytest.raises(ValueError, match="expected 2 velocity channels, got 0"):
        bound(x).log_prob(State.at(x))
