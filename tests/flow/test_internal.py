"""Laws of the internal flow as a proposal: samples and densities agree, and neither pose nor file order matters."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from timewarp.energy import Bonded
from timewarp.flow.chart import InternalChart
from timewarp.flow.internal import CHUNK, Internal, InternalConfig, InternalProposal
from timewarp.flow.warmth import DEFENSIVE, Warmth
from timewarp.kernel import Proposal, Transition
from timewarp.state import State

from .molecules import SMALL, chart_of, flow_of, molecule_of, proposal_of, shaken
from .test_tree import scrambled


def proposal(sequence="AA", dtype=torch.float64, **how):
    return proposal_of(molecule_of(sequence), chart_of(sequence, dtype), flow_of(dtype, **how), dtype)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_it_is_a_proposal():
    bound = proposal()
    assert isinstance(bound, Proposal)
    assert isinstance(bound(molecule_of("AA").reference[None]), Transition)


@torch.no_grad()
@pytest.mark.parametrize("sequence", ["AA", "GP"])
def test_the_density_of_a_sample_is_the_one_returned_with_it(sequence):
    bound = proposal(sequence)
    transition = bound(shaken(molecule_of(sequence), 2, 0))
    state, log_prob = transition.sample(40, seeded(0))
    assert state.positions.shape == (40, 2, molecule_of(sequence).atoms, 3)
    assert state.positions.dtype == torch.float64
    assert log_prob.shape == (40, 2)
    again = transition.log_prob(state)
    assert (again - log_prob).abs().median() < 1e-7
    assert ((again - log_prob).abs() < 1e-4).double().mean() > 0.97  # but where a clash makes mu(tau) a cliff


@torch.no_grad()
def test_a_warm_flow_knows_the_density_of_its_draws():
    usual = proposal("AA")
    warm = InternalProposal(usual.flow, usual.tokens, usual.stiff, usual.growth, Warmth((1.0, 1.5), (0.6, 0.4)))
    state, log_prob = warm.draw(40, seeded(0))
    again = warm.density(state.positions, state.velocities)
    assert (again - log_prob).abs().median() < 1e-7
    assert (usual.density(state.positions, state.velocities) - log_prob).abs().median() > 0.01


def test_velocity_channels_are_as_trained_only():
    usual = proposal("AA", config=replace(SMALL, velocities=2))
    with pytest.raises(ValueError, match="expected the temperature of training with velocity channels"):
        InternalProposal(usual.flow, usual.tokens, usual.stiff, None, DEFENSIVE)


@torch.no_grad()
def test_the_same_in_single_precision():
    bound = proposal(dtype=torch.float32)
    transition = bound(shaken(molecule_of("AA"), 1, 0).float())
    state, log_prob = transition.sample(200, seeded(0))
    off = (transition.log_prob(state) - log_prob).abs()
    assert off.isfinite().all()
    assert off.median() < 2e-3
    assert (off < 0.05).double().mean() > 0.95


@torch.no_grad()
def test_two_flows_are_normalised_against_each_other():
    """E_p[q/p] = 1 for densities that are normalised over the same volume: torsions, stiff coordinates, pose left."""
    p, q, rng = proposal(), proposal(), seeded(8)
    for weight in q.flow.parameters():
        weight.add_(0.004 * torch.randn(weight.shape, generator=rng))
    state, log_p = p(molecule_of("AA").reference[None]).sample(800, seeded(3))
    ratio = (q(state.positions[0, :1]).log_prob(State.at(state.positions[:, 0])) - log_p[:, 0]).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert 0.005 < error < 0.03
    assert abs(ratio.mean() - 1) < 4 * error


@torch.no_grad()
def test_it_is_memoryless():
    """The shape of the condition has no say: neither in the density nor, pose aside, in the sample."""
    bound = proposal()
    assert bound.memoryless
    assert bound.channels == 0
    here, there = shaken(molecule_of("AA"), 1, 0, 0.01), shaken(molecule_of("AA"), 1, 1, 0.01)
    one, density = bound(here).sample(5, seeded(2))
    two, same = bound(there).sample(5, seeded(2))
    assert torch.equal(density, same)
    assert (torch.cdist(one.positions, one.positions) - torch.cdist(two.positions, two.positions)).abs().max() < 1e-6
    assert torch.equal(bound(here).log_prob(one), bound(there).log_prob(one))


@torch.no_grad()
def test_moving_the_molecule_moves_the_sample_and_changes_no_density():
    bound, x = proposal(), shaken(molecule_of("AA"), 1, 0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeded(5)).double())[0]
    turn = turn * torch.linalg.det(turn)
    one, density = bound(x).sample(5, seeded(2))
    two, same = bound(x @ turn + 2.0).sample(5, seeded(2))
    assert (one.positions @ turn + 2.0 - two.positions).abs().max() < 1e-9
    assert torch.equal(density, same)
    assert (bound(x).log_prob(two) - bound(x).log_prob(one)).abs().median() < 1e-7


@torch.no_grad()
@pytest.mark.parametrize("sequence", ["AA", "LG"])
def test_permuting_the_atoms_permutes_the_samples(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    other, order = scrambled(molecule, 5)
    made = InternalChart(other, Bonded(other), dtype=torch.float64)
    flow, x = flow_of(torch.float64), shaken(molecule, 2, 0)
    first, second = (proposal_of(m, c, flow, torch.float64) for m, c in ((molecule, chart), (other, made)))
    one, density = first(x).sample(10, seeded(2))
    two, same = second(x[:, order]).sample(10, seeded(2))
    assert (one.positions[..., order, :] - two.positions).abs().median() < 1e-6
    assert (density - same).abs().median() < 1e-4  # tables of torsions are kept in single precision
    permuted = second(x[:, order]).log_prob(State.at(one.positions[..., order, :]))
    assert (permuted - density).abs().median() < 1e-4


@torch.no_grad()
def test_handedness_is_kept():
    """Every draw has the prepared signs; the mirror image of a draw has next to no density."""
    bound, molecule = proposal(), molecule_of("AA")
    state, log_prob = bound(molecule.reference[None]).sample(50, seeded(2))
    chart = bound.chart
    turns = chart.internal(state.positions[:, 0])[..., 2] - chart.prepared[:, 2]
    assert (torch.cos(turns)[:, chart.stiff[:, 2]] > 0).all()
    mirror = State.at(state.positions * torch.tensor([-1.0, 1.0, 1.0]))
    assert (bound(molecule.reference[None]).log_prob(mirror) < log_prob - 100).all()


@torch.no_grad()
def test_the_stiff_coordinates_follow_their_law():
    torch.manual_seed(0)
    molecule, chart = molecule_of("AA"), chart_of("AA")
    bound = proposal_of(molecule, chart, Internal(SMALL).double(), torch.float64)
    state, log_prob = bound(molecule.reference[None]).sample(600, seeded(2))
    torsions, stiff, log_det = chart.forward(state.positions[:, 0])
    noise, stretch = bound.stiff.pull(bound.stiff.at(torsions), stiff)
    inside = noise.abs().amax(1) < 6  # no cliff between draw and density
    assert inside.double().mean() > 0.97
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(1)
    curves = bound.growth.curves(torsions)
    torsion = bound.flow.torsion.log_prob(bound.tokens, bound.atoms, torsions, curves)
    assert ((torsion + normal + log_det - stretch - log_prob[:, 0])[inside]).abs().median() < 1e-7
    assert (noise[inside].std(0) - 1).abs().max() < 0.15
    assert noise[inside].mean(0).abs().max() < 0.2


def test_gradients_of_the_density_are_those_of_differences():
    """At shapes held fixed: what the score function's estimates take."""
    molecule, chart, flow = molecule_of("GG"), chart_of("GG"), flow_of(torch.float64)
    bound = proposal_of(molecule, chart, flow, torch.float64)
    transition = bound(molecule.reference[None])
    state, _ = transition.sample(4, seeded(1))
    assert not state.positions.requires_grad

    def loss():
        return transition.log_prob(state).mean()

    loss().backward()
    missing = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    h = 1e-6
    for weight in (flow.torsion.leave[1].weight, flow.encoder.enter[0].weight):
        k = weight.grad.abs().flatten().argmax()
        assert weight.grad.view(-1)[k] != 0
        with torch.no_grad():
            weight.view(-1)[k] += h
            up = loss()
            weight.view(-1)[k] -= 2 * h
            down = loss()
            weight.view(-1)[k] += h
        assert weight.grad.view(-1)[k].item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-3)


def test_the_encoded_atoms_follow_the_weights():
    bound, x = proposal("GG"), molecule_of("GG").reference[None]
    with torch.no_grad():
        state, before = bound(x).sample(3, seeded(1))
        bound.flow.encoder.enter[0].weight.add_(0.3)
        changed = bound(x).log_prob(state)
        fresh = InternalProposal(bound.flow, bound.tokens, bound.stiff, bound.growth)(x).log_prob(state)
    assert (changed - before).abs().min() > 1e-4
    assert torch.equal(changed, fresh)


def test_the_encoder_runs_once_where_nothing_is_learned():
    bound, x = proposal("GG"), molecule_of("GG").reference[None]
    calls = []
    bound.flow.encoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        state, _ = bound(x).sample(2, seeded(1))
        bound(x).log_prob(state)
    assert len(calls) == 1
    bound(x).log_prob(state)
    assert len(calls) == 2  # a gradient may be wanted
    bound.flow.requires_grad_(False)
    bound(x).log_prob(state)
    assert len(calls) == 2


@torch.no_grad()
def test_many_draws_are_made_in_chunks(monkeypatch):
    bound, x = proposal("GG"), molecule_of("GG").reference[None]
    assert bound(x).sample(CHUNK + 3, seeded(1))[1].shape == (CHUNK + 3, 1)
    monkeypatch.setattr("timewarp.flow.internal.CHUNK", 4)
    state, log_prob = bound(x).sample(10, seeded(1))
    assert (bound(x).log_prob(state) - log_prob).abs().median() < 1e-7
    assert len(torch.unique(log_prob)) == 10


@torch.no_grad()
def test_positions_that_are_not_finite_have_no_density():
    """They are rejected, and the others of the batch are not harmed."""
    bound, molecule = proposal("GG"), molecule_of("GG")
    x = molecule.reference.expand(3, -1, -1).clone()
    x[1, 4] = torch.nan
    x[2, 4] = torch.inf
    found = bound(x[:1]).log_prob(State.at(x))
    assert found[0].isfinite()
    assert not found[1:].isfinite().any()


def test_the_checkpoint_in_the_repository_has_the_names_and_shapes_of_the_flow():
    path = Path(__file__).parents[2] / "checkpoints" / "2aa"
    config = json.loads(path.with_suffix(".json").read_text())["config"]
    Internal(InternalConfig(**config)).load_state_dict(load_file(path.with_suffix(".safetensors")))
