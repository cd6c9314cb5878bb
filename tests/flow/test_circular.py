"""Laws of the density on the circle: normalised, periodic, its quantile the inverse of its CDF, never an exception."""

import math

import pytest
import torch

from timewarp.flow.circular import Circular

GRID = 72


def angles(count):
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (2 * math.pi / count) - math.pi


def waves(seed, size=1.0, batch=()):
    """A log density of a few Fourier terms, at the grid."""
    rng = torch.Generator().manual_seed(seed)
    grid = torch.arange(GRID, dtype=torch.float64) * (2 * math.pi / GRID) - math.pi
    n = torch.arange(1, 5)[:, None]
    table = torch.cat([torch.cos(n * grid), torch.sin(n * grid)])
    return size * torch.randn(*batch, 8, generator=rng, dtype=torch.float64) @ table


def extreme():
    """Log densities up to +-200: spikes on and between knots, holes, jumps."""
    rng = torch.Generator().manual_seed(0)
    spikes = torch.full((4, GRID), -200.0)
    spikes[torch.arange(4), torch.tensor([0, 7, 12, GRID - 1])] = 200.0
    holes = torch.full((2, GRID), 200.0)
    holes[torch.arange(2), torch.tensor([3, 20])] = -200.0
    return torch.cat([spikes, holes, 400 * torch.rand(20, GRID, generator=rng) - 200, waves(1, 100, (6,)).float()])


def test_it_integrates_to_one():
    density = Circular(waves(0, batch=(5,))[:, None].expand(5, 20_000, GRID))
    total = density.log_prob(angles(20_000).expand(5, -1)).exp().mean(1) * 2 * math.pi
    assert (total - 1).abs().max() < 1e-4


def test_it_is_the_density_that_was_given():
    """At every angle, up to the constant and the coarseness of the spline."""
    log_density = waves(0, 0.5)
    x = torch.arange(GRID, dtype=torch.float64) * (2 * math.pi / GRID) - math.pi
    found = Circular(log_density.expand(GRID, GRID)).log_prob(x)
    wanted = log_density - torch.logsumexp(log_density, 0) + math.log(GRID / (2 * math.pi))
    assert (found - wanted).abs().max() < 0.02


def test_the_log_prob_is_the_slope_of_the_cdf_and_the_quantile_its_inverse():
    u = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
    density = Circular(waves(3).expand(500, GRID))
    x, log_prob = density.quantile(u)
    assert (x.diff() > 0).all()
    assert (density.log_prob(x) - log_prob).abs().max() < 1e-7
    h = 1e-6
    slope = (density.quantile(u + h)[0] - density.quantile(u - h)[0]) / (2 * h)
    assert (slope.log() + log_prob).abs().max() < 1e-5
    # the CDF at the quantile, by quadrature
    fine = torch.linspace(-math.pi, float(x[300]), 40_001, dtype=torch.float64)
    below = torch.trapezoid(Circular(waves(3).expand(40_001, GRID)).log_prob(fine).exp(), fine)
    assert below.item() == pytest.approx(u[300].item(), abs=1e-6)


def test_it_is_periodic():
    log_density = waves(2, batch=(6,))
    end = torch.full((6,), math.pi, dtype=torch.float64)
    density = Circular(log_density)
    assert (density.log_prob(end) - density.log_prob(-end)).abs().max() < 1e-9
    assert (density.log_prob(end - 1e-6) - density.log_prob(1e-6 - end)).abs().max() < 1e-4  # no jump
    # the grid turned by ten knots is the density turned by as much
    turned = Circular(log_density.roll(20, -1))
    x = angles(6)
    shifted = torch.remainder(x - 20 * 2 * math.pi / GRID + math.pi, 2 * math.pi) - math.pi
    assert (turned.log_prob(x) - density.log_prob(shifted)).abs().max() < 1e-9


def test_adding_a_constant_changes_nothing():
    x = angles(6)
    one, two = Circular(waves(2, batch=(6,))), Circular(waves(2, batch=(6,)) + 300.0)
    assert (one.log_prob(x) - two.log_prob(x)).abs().max() < 1e-9


@pytest.mark.parametrize("draws", [10**5, pytest.param(10**6, marks=pytest.mark.long)])
def test_extreme_draws(draws):
    """Single precision, log densities up to +-200: finite, in range, and their own density."""
    log_density = extreme()
    each = draws // len(log_density)
    rng = torch.Generator().manual_seed(1)
    for row in log_density:
        density = Circular(row.expand(each, GRID))
        u = torch.rand(each, generator=rng)
        x, log_prob = density.quantile(u)
        assert x.abs().max() <= math.pi + 1e-6
        assert log_prob.isfinite().all()
        again = density.log_prob(x)
        assert again.isfinite().all()
        assert (again - log_prob).abs().max() < 5e-3


def test_draws_in_single_precision_have_their_own_density():
    for seed in range(5):
        density = Circular(waves(seed).float().expand(10_000, GRID))
        x, log_prob = density.quantile(torch.rand(10_000, generator=torch.Generator().manual_seed(seed)))
        assert x.dtype == log_prob.dtype == torch.float32
        assert (density.log_prob(x) - log_prob).abs().max() < 3e-5


def test_extremes_are_still_normalised():
    log_density = extreme().double()
    count = 72 * 200
    total = torch.stack([Circular(row.expand(count, GRID)).log_prob(angles(count)).exp().mean() for row in log_density])
    assert (total * 2 * math.pi - 1).abs().max() < 1e-3


def test_the_ends_of_the_unit_interval():
    x, log_prob = Circular(extreme()).quantile(torch.zeros(len(extreme())))
    assert torch.allclose(x, torch.tensor(-math.pi))
    assert log_prob.isfinite().all()
    x, _ = Circular(extreme()).quantile(torch.full((len(extreme()),), 1 - 2**-24))
    assert x.isfinite().all()


def test_an_angle_that_is_not_a_number_has_no_density():
    density = Circular(waves(0, batch=(3,)))
    found = density.log_prob(torch.tensor([0.1, math.nan, math.inf], dtype=torch.float64))
    assert found[0].isfinite()
    assert not found[1:].isfinite().any()


def test_no_angle_at_all():
    assert Circular(torch.zeros(3, 0, GRID)).log_prob(torch.zeros(3, 0)).shape == (3, 0)


def test_gradients_reach_the_density_and_the_angle():
    log_density = extreme().double().requires_grad_()
    u = torch.rand(len(log_density), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x, log_prob = Circular(log_density).quantile(u)
    (x.sum() + log_prob.sum()).backward()
    assert log_density.grad.isfinite().all()
    smooth = waves(0, 0.7).requires_grad_()
    x, log_prob = Circular(smooth).quantile(torch.tensor(0.37, dtype=torch.float64))
    log_prob.backward()
    step = torch.zeros(GRID, dtype=torch.float64)
    step[40] = 1e-5
    up, down = (Circular(waves(0, 0.7) + s).quantile(torch.tensor(0.37, dtype=torch.float64))[1] for s in (step, -step))
    assert smooth.grad[40].item() == pytest.approx(((up - down) / 2e-5).item(), rel=1e-4)
