"""Laws of the two-piece normal along directions of the noise."""

import pytest
import torch
from scipy import stats

from timewarp.flow import skew
from timewarp.flow.skew import lopsided, normal, pulled_back, skewed, straightened

WIDTHS = [(1.0, 1.0), (0.2, 0.9), (1.5, 0.1), (3.0, 0.5)]


def grid(reach):
    return torch.linspace(-reach, reach, 401, dtype=torch.float64)


def widths(pair, like):
    return torch.tensor(pair, dtype=torch.float64).expand(*like.shape, 2)


@pytest.mark.parametrize("pair", WIDTHS)
def test_normal_numbers_become_two_piece_normal_ones(pair):
    left, right = pair
    a = torch.randn(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = lopsided(a, widths(pair, a))[0].numpy()

    def cumulative(x):
        below = 2 * left / (left + right) * stats.norm.cdf(x / left)
        above = 1 - 2 * right / (left + right) * stats.norm.sf(x / right)
        return (x < 0) * below + (x >= 0) * above

    assert stats.kstest(x, cumulative).pvalue > 1e-3
    if left != right:
        assert stats.kstest(-x, cumulative).pvalue < 1e-6


@pytest.mark.parametrize("pair", WIDTHS)
@pytest.mark.parametrize("reach", [3.0, 45.0])
def test_it_can_be_undone_and_its_slope_is_that_of_differences(pair, reach):
    a, h = grid(reach) + 1e-3, 1e-5
    x, log_slope = lopsided(a, widths(pair, a))
    back, again = normal(x, widths(pair, x))
    torch.testing.assert_close(back, a, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(again, log_slope, rtol=1e-7, atol=1e-7)
    numeric = (lopsided(a + h, widths(pair, a))[0] - lopsided(a - h, widths(pair, a))[0]) / (2 * h)
    torch.testing.assert_close(numeric.log(), log_slope, rtol=0, atol=1e-3)
    assert (x.diff() > 0).all()


def test_with_one_width_it_is_a_scale():
    a = grid(30.0)
    x, log_slope = lopsided(a, widths((0.7, 0.7), a))
    torch.testing.assert_close(x, 0.7 * a, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_slope.exp(), torch.full_like(a, 0.7))


def test_a_direction_of_one_width_has_johnsons_s_u_distribution():
    e = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None]
    axes, even = torch.ones(41, 1, 1, dtype=torch.float64), torch.ones(41, 1, 2, dtype=torch.float64)
    x, log_slope = skewed(e, axes, even)
    law = stats.johnsonsu(a=0, b=skew.SHAPE, scale=skew.SHAPE)
    torch.testing.assert_close(-0.5 * e[:, 0].square() - log_slope, torch.tensor(law.logpdf(x[:, 0])) + 0.9189385332)


def test_only_the_axes_are_touched_and_a_missing_one_is_none():
    rng = torch.Generator().manual_seed(1)
    e = torch.randn(50, 6, generator=rng, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(50, 6, 3, generator=rng, dtype=torch.float64))[0].mT.clone()
    axes[:, 2] = 0.0
    wide = torch.tensor([[0.3, 1.2], [2.0, 0.8], [1.0, 1.0]], dtype=torch.float64).expand(50, 3, 2)
    other, log_det = skewed(e, axes, wide)
    beside = other - e
    for k in range(2):
        beside = beside - (axes[:, k] * (other - e)).sum(1, keepdim=True) * axes[:, k]
    assert beside.abs().max() < 1e-12
    assert (other - e).abs().max() > 0.5
    back, again = straightened(other, axes, wide)
    torch.testing.assert_close(back, e, rtol=0, atol=1e-10)
    torch.testing.assert_close(again, log_det, rtol=0, atol=1e-10)
    h, eye = 1e-6, torch.eye(6, dtype=torch.float64)
    for k in range(5):
        turned = [skewed(e[k] + s * h * eye, axes[k].expand(6, -1, -1), wide[k].expand(6, -1, -1))[0] for s in (1, -1)]
        jacobian = (turned[0] - turned[1]) / (2 * h)
        assert log_det[k].item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-6)


def test_a_slope_is_pulled_back_as_differences_say():
    rng, h = torch.Generator().manual_seed(2), 1e-6
    e = torch.randn(30, 5, generator=rng, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(30, 5, 2, generator=rng, dtype=torch.float64))[0].mT
    wide = 0.2 + torch.rand(30, 2, 2, generator=rng, dtype=torch.float64)
    pull = torch.randn(5, generator=rng, dtype=torch.float64)

    def value(e):
        there, log_det = skewed(e, axes, wide)
        return 0.5 * there.square().sum(1) + there @ pull - log_det

    found = pulled_back(skewed(e, axes, wide)[0] + pull, e, axes, wide)
    for k in range(5):
        step = h * torch.eye(5, dtype=torch.float64)[k]
        numeric = (value(e + step) - value(e - step)) / (2 * h)
        torch.testing.assert_close(found[:, k], numeric, rtol=0, atol=1e-5)


def test_the_tail_goes_on_as_a_line():
    x = torch.tensor([skew.TAIL, skew.TAIL + 1, skew.TAIL + 2], dtype=torch.float64)
    a = normal(x, widths((1.0, 1.0), x))[0]
    torch.testing.assert_close(a.diff(), torch.ones(2, dtype=torch.float64))
    wall = normal(0.2 * x, widths((0.9, 0.2), x))[0]
    assert wall.isfinite().all()
    torch.testing.assert_close(wall.diff()[0], wall.diff()[1], rtol=1e-9, atol=0)
