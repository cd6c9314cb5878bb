"""Laws of the published flow: a density, its samples, and what leaves them unchanged."""

import math
from dataclasses import replace

import pytest
import torch

from timewarp.flow.cartesian import Cartesian, CartesianConfig
from timewarp.flow.cartesian_coupling import Coupling
from timewarp.flow.cartesian_proposal import CartesianProposal
from timewarp.flow.cartesian_rotation import randomly_rotated
from timewarp.state import State

SMALL = CartesianConfig(features=4, blocks=2, width=8, layers=1, value=4, feedforward=16, hidden=8)
CONFIGS = [SMALL, replace(SMALL, velocities=1, twin=True, feature_scales=True), replace(SMALL, velocities=2)]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def stirred(config=SMALL, seed=0, strength=0.4):
    """A flow in float64 whose couplings and scales are far from the identity."""
    flow, rng = Cartesian(config).double(), seeded(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return flow


def condition(batch=3, atoms=5, features=4, seed=1):
    rng = seeded(seed)
    shape = {"generator": rng, "dtype": torch.float64}
    return torch.randn(batch, atoms, features, **shape), 0.3 * torch.randn(batch, atoms, 3, **shape)


def close(a, b, **tolerance):
    torch.testing.assert_close(a.positions, b.positions, **tolerance)
    torch.testing.assert_close(a.velocities, b.velocities, **tolerance)


def check_change_of_variables(flow):
    """ln p equals the base density minus autograd's ln |det| of the whole map from noise to state."""
    transition = flow(*condition(batch=1, atoms=3))
    noise = transition.noise(1, seeded(2))
    flat = torch.cat([noise.positions, noise.velocities], -1).flatten()

    def whole(z):
        z = z.view(1, 1, 3, -1)
        state, _ = transition.push(State(z[..., :3], z[..., 3:]))
        return torch.cat([state.positions, state.velocities], -1).flatten()

    log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(whole, flat)).logabsdet
    base = torch.distributions.Normal(0.0, 1.0).log_prob(flat).sum()
    state, pushed = transition.push(noise)
    torch.testing.assert_close(pushed.squeeze(), log_det)
    torch.testing.assert_close(transition.log_prob(state).squeeze(), base - log_det)


@pytest.mark.parametrize("config", CONFIGS)
def test_inverse_of_forward_is_identity(config):
    transition = stirred(config)(*condition())
    noise = transition.noise(4, seeded(2))
    state, log_det = transition.push(noise)
    back, again = transition.pull(state)
    close(back, noise)
    torch.testing.assert_close(again, log_det)
    assert (state.positions - transition.positions - noise.positions).abs().max() > 0.1


@pytest.mark.parametrize("config", CONFIGS)
def test_log_prob_is_the_change_of_variables(config):
    check_change_of_variables(stirred(config))


def test_a_flipped_scale_is_noticed(monkeypatch):
    forward = Coupling.forward
    flow = stirred()

    def flipped(self, condition, given):
        log_scale, shift = forward(self, condition, given)
        return _Flipped(log_scale), shift

    class _Flipped:
        """A log scale that multiplies with one sign and is counted with the other."""

        def __init__(self, value):
            self.value = value

        def exp(self):
            return self.value.exp()

        def __neg__(self):
            return -self.value

        def sum(self, axes):
            return -self.value.sum(axes)

    monkeypatch.setattr(Coupling, "forward", getattr(flipped, "__wrapped__", flipped))
    with pytest.raises(AssertionError):
        check_change_of_variables(flow)


@pytest.mark.parametrize("config", CONFIGS)
def test_density_of_a_sample_is_the_one_returned_with_it(config):
    transition = stirred(config)(*condition())
    state, log_prob = transition.sample(5, seeded(3))
    assert state.positions.shape == (5, 3, 5, 3)
    assert state.velocities.shape == (5, 3, 5, config.velocities)
    torch.testing.assert_close(transition.log_prob(state), log_prob)
    torch.testing.assert_close(transition.log_prob(state[2]), log_prob[2])
    torch.testing.assert_close(transition.log_prob(state[None]), log_prob[None])


def test_single_precision_is_enough_for_the_acceptance_ratio():
    features, positions = condition(batch=4, atoms=33, features=32)
    flow = stirred(CartesianConfig(features=32), strength=0.02)
    single = Cartesian(flow.config)
    single.load_state_dict(flow.state_dict())
    state, log_prob = single(features.float(), positions.float()).sample(2, seeded(3))
    exact = flow(features, positions.float().double()).log_prob(
        State(state.positions.double(), state.velocities.double())
    )
    torch.testing.assert_close(log_prob.double(), exact, atol=2e-3, rtol=0)
    assert exact.std() > 1


def test_same_random_state_gives_the_same_sample():
    transition = stirred()(*condition())
    (first, p), (second, q) = transition.sample(2, seeded(3)), transition.sample(2, seeded(3))
    close(first, second, rtol=0, atol=0)
    assert (p == q).all()


def test_each_start_has_its_own_transition():
    features, positions = condition()
    flow = stirred()
    state, log_prob = flow(features, positions).sample(4, seeded(3))
    for k in range(3):
        alone = flow(features[k : k + 1], positions[k : k + 1]).log_prob(state[:, k : k + 1])
        torch.testing.assert_close(alone[:, 0], log_prob[:, k])


def test_permuting_atoms_permutes_outputs():
    features, positions = condition()
    flow, order = stirred(replace(SMALL, feature_scales=True)), torch.randperm(5, generator=seeded(4))
    transition = flow(features, positions)
    shuffled = flow(features[:, order], positions[:, order])
    noise = transition.noise(2, seeded(2))
    state, log_det = transition.push(noise)
    again, log_det_again = shuffled.push(State(noise.positions[:, :, order], noise.velocities[:, :, order]))
    expected = State(state.positions[:, :, order], state.velocities[:, :, order])
    close(again, expected)
    torch.testing.assert_close(log_det_again, log_det)
    torch.testing.assert_close(shuffled.log_prob(expected), transition.log_prob(state))


def test_moving_the_molecule_moves_the_output():
    features, positions = condition()
    flow, shift = stirred(), torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
    state, log_prob = flow(features, positions).sample(2, seeded(3))
    moved, log_prob_moved = flow(features, positions + shift).sample(2, seeded(3))
    close(moved, State(state.positions + shift, state.velocities))
    torch.testing.assert_close(log_prob_moved, log_prob)


@pytest.mark.parametrize("filler", [0.0, 7.5, math.nan])
def test_padding_changes_nothing(filler):
    features, positions = condition()
    flow = stirred(replace(SMALL, feature_scales=True))
    real = torch.arange(8) < 5

    def padded(values):
        return torch.cat([values, torch.full_like(values[..., :3, :], filler)], -2)

    plain, wide = flow(features, positions), flow(padded(features), padded(positions), real)
    noise = plain.noise(2, seeded(2))
    state, log_det = plain.push(noise)
    blank = [torch.nn.functional.pad(v, (0, 0, 0, 3)) for v in (noise.positions, noise.velocities)]
    wide_state, wide_log_det = wide.push(State(*blank))
    close(State(wide_state.positions[:, :, :5], wide_state.velocities[:, :, :5]), state)
    torch.testing.assert_close(wide_log_det, log_det)
    arbitrary = State(padded(state.positions), padded(state.velocities))
    torch.testing.assert_close(wide.log_prob(arbitrary), plain.log_prob(state))
    sample, log_prob = wide.sample(2, seeded(5))
    torch.testing.assert_close(
        sample.positions[..., 5:, :], padded(positions)[:, 5:].expand(2, 3, 3, 3), equal_nan=True
    )
    assert (sample.velocities[..., 5:, :] == 0).all()
    torch.testing.assert_close(
        log_prob, plain.log_prob(State(sample.positions[..., :5, :], sample.velocities[..., :5, :]))
    )
    wide.log_prob(arbitrary).sum().backward()
    assert all(p.grad.isfinite().all() for p in flow.parameters())


def test_molecules_of_different_sizes_share_a_batch():
    flow = stirred()
    (small_h, small_x), (large_h, large_x) = condition(1, 3, seed=8), condition(1, 5, seed=9)
    features = torch.cat([torch.nn.functional.pad(small_h, (0, 0, 0, 2)), large_h])
    positions = torch.cat([torch.nn.functional.pad(small_x, (0, 0, 0, 2)), large_x])
    real = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    state, log_prob = flow(features, positions, real).sample(3, seeded(1))
    alone = flow(small_h, small_x).log_prob(State(state.positions[:, :1, :3], state.velocities[:, :1, :3]))
    torch.testing.assert_close(log_prob[:, :1], alone)
    torch.testing.assert_close(log_prob[:, 1:], flow(large_h, large_x).log_prob(state[:, 1:]))


def test_density_integrates_to_one():
    features, positions = condition(batch=1, atoms=1)
    transition = stirred(strength=0.25)(features, positions)
    rng, count = seeded(11), 200_000
    draws, _ = transition.sample(2000, rng)
    points = torch.cat([draws.positions, draws.velocities], -1).view(2000, 6).detach()
    centre, spread = points.mean(0), 1.5 * points.std(0)
    wide = torch.distributions.StudentT(8.0, centre, spread)
    noise = torch.randn(count, 6, generator=rng, dtype=torch.float64)
    chi = torch.randn(count, 6, 8, generator=rng, dtype=torch.float64).square().sum(-1)  # a seeded Chi2(8)
    values = centre + spread * noise * (8 / chi).sqrt()
    with torch.no_grad():
        log_prob = transition.log_prob(State(values[:, None, None, :3], values[:, None, None, 3:]))[:, 0]
    ratio = (log_prob - wide.log_prob(values).sum(-1)).exp()
    error = ratio.std() / count**0.5
    assert error < 0.02
    assert abs(ratio.mean() - 1) < 4 * error


def test_a_new_flow_is_a_small_step():
    torch.manual_seed(0)
    features, positions = condition(batch=2, atoms=5)
    transition = Cartesian(replace(SMALL, residual=0.07)).double()(features, positions)
    noise = transition.noise(3, seeded(2))
    state, _ = transition.push(noise)
    close(state, State(positions + 0.07 * noise.positions, noise.velocities))


def test_gradients_flow_through_samples():
    features, positions = condition()
    flow = stirred()
    positions.requires_grad_()
    state, log_prob = flow(features, positions).sample(2, seeded(3))
    (state.positions.square().sum() + log_prob.sum()).backward()
    assert positions.grad.abs().max() > 0
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert all(c.transformers[0].enter[1].weight.grad.abs().max() > 0 for c in (*flow.position, *flow.velocity))


def test_gradient_of_samples_with_respect_to_the_start_is_the_numerical_one():
    features, positions = condition(batch=1, atoms=3)
    flow = stirred()

    def through(x):
        state, log_prob = flow(features, x).sample(1, seeded(3))
        return state.positions, state.velocities, log_prob

    assert torch.autograd.gradcheck(through, positions.requires_grad_())


def test_training_reaches_the_entropy_of_a_gaussian_transition():
    torch.manual_seed(0)
    rng = seeded(5)
    features = torch.eye(3)
    spread = torch.tensor([0.02, 0.05, 0.2])[:, None]
    pull = torch.tensor([0.8, 0.4, 0.0])[:, None]  # how far each atom goes towards the centre
    entropy = 3 * float(spread.log().sum()) + 18 * 0.5 * math.log(2 * math.pi * math.e)

    def pairs(count):
        start = 0.3 * torch.randn(count, 3, 3, generator=rng)
        end = start - pull * (start - start.mean(1, keepdim=True))
        end = end + spread * torch.randn(count, 3, 3, generator=rng)
        return start, State.at(end, 3, rng)

    config = replace(SMALL, features=3, blocks=1, width=16, hidden=32)
    flow = Cartesian(config)
    steps = 330
    optimizer = torch.optim.Adam(flow.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    start, state = pairs(4000)
    with torch.no_grad():
        before = -flow(features, start).log_prob(state).mean()
    for _ in range(steps):
        x, y = pairs(128)
        loss = -flow(features, x).log_prob(y).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        after = -flow(features, start).log_prob(state).mean()
    assert before > entropy + 10
    assert entropy - 0.2 < after < entropy + 0.5


def test_proposal_is_bound_to_its_molecule():
    features, positions = condition()
    flow = stirred(CONFIGS[1])
    proposal = CartesianProposal(flow, features[0])
    assert proposal.channels == 1
    assert not proposal.memoryless
    state, log_prob = proposal(positions).sample(2, seeded(3))
    torch.testing.assert_close(log_prob, flow(features[0], positions).log_prob(state))
    assert not torch.allclose(log_prob, flow(features[1], positions).log_prob(state))


def test_rotations_keep_distances_and_hands_and_turn_pairs_together():
    pair = torch.randn(500, 2, 6, 3, generator=seeded(7), dtype=torch.float64)
    turned = randomly_rotated(pair, seeded(8))
    both, both_turned = pair.flatten(1, 2), turned.flatten(1, 2)
    torch.testing.assert_close(torch.cdist(both_turned, both_turned), torch.cdist(both, both))
    torch.testing.assert_close(torch.linalg.det(both_turned[:, :3]), torch.linalg.det(both[:, :3]))
    arrow = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(20_000, 1, 3)
    ends = randomly_rotated(arrow, seeded(9))[:, 0]
    assert ends.mean(0).abs().max() < 0.02  # uniform on the sphere: mean 0, second moment 1/3
    torch.testing.assert_close(ends.T @ ends / 20_000, torch.eye(3, dtype=torch.float64) / 3, atol=0.01, rtol=0)
    single, alone = pair[0, 0], randomly_rotated(pair[0, 0], seeded(8))
    torch.testing.assert_close(alone @ alone.T, single @ single.T)
    assert not torch.allclose(alone, single)


def test_published_size():
    with torch.device("meta"):
        flow = Cartesian(CartesianConfig.published())
    assert sum(p.numel() for p in flow.parameters()) == pytest.approx(106e6, rel=0.005)


@pytest.mark.parametrize("velocities", [0, 4])
def test_velocity_channels_out_of_range(velocities):
    with pytest.raises(ValueError, match=f"expected 1 to 3 velocity channels.*got {velocities}"):
        replace(SMALL, velocities=velocities)


def test_wrong_shapes_say_what_was_expected():
    features, positions = condition()
    flow = stirred()
    with pytest.raises(ValueError, match=r"expected features \[\*, 5, 4\], got \[3, 5, 2\]"):
        flow(features[..., :2], positions)
    with pytest.raises(ValueError, match=r"expected torch\.float64 positions, got torch\.float32"):
        flow(features, positions.float())
    with pytest.raises(ValueError, match=r"expected states \[\*, 3, 5, 3\], got \[3, 5, 2\]"):
        flow(features, positions).log_prob(State.at(positions, 2, seeded(0)))
