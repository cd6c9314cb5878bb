"""Laws of the kernel attention and of the atom transformer."""

import math

import pytest
import torch

from timewarp.flow.attention import KernelAttention, kernel_weights
from timewarp.flow.transformer import AtomTransformer

LENGTHS = (0.1, 0.2, 0.5, 0.7, 1.0, 1.2)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def cloud(batch=2, atoms=7, seed=0):
    return 0.3 * torch.randn(batch, atoms, 3, generator=seeded(seed), dtype=torch.float64)


def everywhere(positions):
    return torch.ones(positions.shape[:-1], dtype=torch.bool)


def transformer(latent=2, out=5):
    torch.manual_seed(3)
    net = AtomTransformer(3, latent, out, width=12, layers=2, heads=6, value=4, feedforward=16, hidden=10).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return net


def test_two_atoms_have_the_weights_of_the_formula():
    positions = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 0.0, 0.4]]], dtype=torch.float64)  # 0.5 nm apart
    weights = kernel_weights(positions, everywhere(positions), LENGTHS)
    for head, length in enumerate(LENGTHS):
        other = math.exp(-(0.5**2) / length**2)
        expected = torch.tensor([[1.0, other], [other, 1.0]], dtype=torch.float64) / (1 + other)
        torch.testing.assert_close(weights[0, head], expected)


def test_weights_are_normalised_over_real_atoms_and_ignore_padding():
    positions = cloud()
    padded = torch.cat([positions, cloud(atoms=3, seed=1)], 1)
    real = everywhere(padded)
    real[:, 7:] = False
    weights = kernel_weights(padded, real, LENGTHS)
    assert (weights[..., 7:] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, 10, dtype=torch.float64))
    torch.testing.assert_close(weights[..., :7, :7], kernel_weights(positions, everywhere(positions), LENGTHS))


def test_weights_see_distances_alone():
    positions = cloud()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=seeded(5), dtype=torch.float64))
    moved = positions @ turn.T + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    args = everywhere(positions), LENGTHS
    torch.testing.assert_close(kernel_weights(moved, *args), kernel_weights(positions, *args))


def test_weights_are_differentiable_where_atoms_meet():
    positions = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    kernel_weights(positions, everywhere(positions), LENGTHS).square().sum().backward()
    assert positions.grad.isfinite().all()


def test_attention_is_the_sum_over_heads_written_out():
    positions, tokens = cloud(), torch.randn(3, 2, 7, 8, generator=seeded(2), dtype=torch.float64)
    attention = KernelAttention(8, 6, 4).double()
    weights = kernel_weights(positions, everywhere(positions), LENGTHS)
    expected = attention.mix.bias.expand(3, 2, 7, 8)
    for head in range(6):
        part = slice(4 * head, 4 * head + 4)
        expected = (
            expected + weights[:, head] @ tokens @ attention.values.weight[part].T @ attention.mix.weight[:, part].T
        )
    torch.testing.assert_close(attention(tokens, weights), expected)


def test_transformer_permutes_with_the_atoms():
    positions, latent = cloud(), torch.randn(3, 2, 7, 2, generator=seeded(4), dtype=torch.float64)
    net, order = transformer(), torch.randperm(7, generator=seeded(6))
    out = net(positions, latent, kernel_weights(positions, everywhere(positions), LENGTHS))
    shuffled = positions[:, order]
    again = net(shuffled, latent[:, :, order], kernel_weights(shuffled, everywhere(positions), LENGTHS))
    torch.testing.assert_close(again, out[:, :, order])
    assert not torch.allclose(again, out)


def test_atoms_hear_one_another():
    positions, latent = cloud(), torch.randn(1, 2, 7, 2, generator=seeded(4), dtype=torch.float64)
    net, weights = transformer(), kernel_weights(cloud(), everywhere(positions), LENGTHS)
    other = latent.clone()
    other[:, :, 0] += 1.0
    change = (net(positions, other, weights) - net(positions, latent, weights)).abs().amax((0, 1, 3))
    assert (change > 1e-6).all()


@pytest.mark.parametrize("count", [1, 4])
def test_many_latents_share_one_condition(count):
    positions, latent = cloud(), torch.randn(count, 2, 7, 2, generator=seeded(4), dtype=torch.float64)
    net, weights = transformer(), kernel_weights(cloud(), everywhere(positions), LENGTHS)
    one_by_one = torch.cat([net(positions, latent[k : k + 1], weights) for k in range(count)])
    torch.testing.assert_close(net(positions, latent, weights), one_by_one)


def test_transformer_is_silent_at_construction():
    net = AtomTransformer(3, 2, 5, width=12, layers=2, heads=6, value=4, feedforward=16, hidden=10).double()
    positions, latent = cloud(), torch.randn(1, 2, 7, 2, generator=seeded(4), dtype=torch.float64)
    assert (net(positions, latent, kernel_weights(positions, everywhere(positions), LENGTHS)) == 0).all()
