"""Laws of the relaxed stiff coordinates and of the curvature that is refined with them."""

import pytest
import torch

from timewarp.energy import Potential
from timewarp.flow.curvature import Curvature
from timewarp.flow.response import Response
from timewarp.flow.stiff import Stiff
from timewarp.flow.whitening import refined

from .molecules import chart_of, molecule_of

SEQUENCE = "AA"


def potential(sequence=SEQUENCE):
    return Potential(molecule_of(sequence), dtype=torch.float64)


def conformers(count, seed=0, sequence=SEQUENCE, keep=200):
    """Torsions of the best of many random conformers: no clashes."""
    chart, rng = chart_of(sequence), torch.Generator().manual_seed(seed)
    tau = (2 * torch.rand(keep, chart.torsions, generator=rng, dtype=torch.float64) - 1) * torch.pi
    response = Response(chart, potential(sequence))
    density = response.slope(tau, response(tau))[0]
    return tau[density.argsort()[:count]]


def test_the_slope_is_that_of_the_energy_and_the_volume():
    chart = chart_of(SEQUENCE)
    response = Response(chart, potential())
    tau, z = conformers(1), 0.3 * torch.randn(1, chart.stiffs, generator=torch.Generator().manual_seed(1)).double()
    total, gradient = response.slope(tau, z)
    positions, log_det = chart.inverse(tau, z)
    assert total.item() == pytest.approx((potential()(positions) + log_det).item(), abs=1e-8)
    h = 1e-5
    for k in range(0, chart.stiffs, 7):
        step = torch.zeros_like(z)
        step[0, k] = h
        slope = (response.slope(tau, z + step)[0] - response.slope(tau, z - step)[0]) / (2 * h)
        assert gradient[0, k].item() == pytest.approx(slope.item(), abs=1e-4)


def test_it_lowers_the_energy():
    chart, energy = chart_of(SEQUENCE), potential()
    tau = conformers(50)
    start = Response(chart, energy, steps=0)
    before = start.slope(tau, start(tau))[0]
    after = [Response(chart, energy, steps=steps) for steps in (1, 2)] + [Response(chart, energy, 60, damping=0.5)]
    values = [r.slope(tau, r(tau))[0] for r in after]
    assert (values[0] < before).double().mean() > 0.95
    assert values[0].mean() < before.mean() - 5
    assert values[1].mean() < values[0].mean() - 1
    assert values[2].mean() < values[1].mean()
    assert values[1].mean() < values[2].mean() + 1.5  # two steps are nearly there


def test_it_arrives_where_the_slope_is_zero():
    response = Response(chart_of(SEQUENCE), potential(), steps=60, damping=0.5)
    tau = conformers(10)
    assert response.slope(tau, response(tau))[1].abs().max() < 1e-3


def test_it_is_a_function_of_the_torsions_alone():
    """Of each configuration by itself, periodic in every torsion."""
    response = Response(chart_of(SEQUENCE), potential())
    tau = conformers(6)
    whole = response(tau)
    assert (response(tau[2:3]) - whole[2:3]).abs().max() < 1e-9
    assert (response(tau + 2 * torch.pi) - whole).abs().max() < 1e-7


def test_a_clash_moves_no_coordinate_beyond_the_cap():
    chart = chart_of(SEQUENCE)

    class Broken:
        def __call__(self, positions):
            first = positions.flatten(1)[:, 20]
            return 1e30 * first + torch.log(-first.abs() - 1.0)  # an enormous slope, and not a number

    tau = conformers(3)
    z = Response(chart, Broken(), steps=2, damping=0.8, cap=1.5)(tau)
    assert z.isfinite().all()
    assert z.abs().max() <= 2 * 0.8 * 1.5 + 1e-9
    steep = Response(chart, lambda x: 1e6 * x.flatten(1)[:, 20:30].sum(1), steps=1, damping=1.0, cap=3.0)(tau)
    assert steep.abs().max() == pytest.approx(3.0)


def curvature(response, tau, z, spacing=0.02):
    """Hessian of minus the log density in z."""
    n = z.shape[-1]
    steps = spacing * torch.eye(n, dtype=z.dtype)
    slope = response.slope(tau.expand(2 * n, -1), z + torch.cat([steps, -steps]))[1]
    return (slope[:n] - slope[n:]) / (2 * spacing)


def law(chart, energy, steps=4, sequence=SEQUENCE):
    response = Response(chart, energy, steps=steps, cap=3.0)
    return Stiff(chart, response, Curvature(molecule_of(sequence), chart, 310.0))


def test_the_refined_chart_has_unit_curvature_on_average():
    chart, energy = chart_of(SEQUENCE), potential()
    tau = conformers(12)
    new = refined(law(chart, energy), tau)

    def mean_curvature(chart):
        response = Response(chart, energy, steps=4, cap=3.0)
        return torch.stack([curvature(response, t, z) for t, z in zip(tau, response(tau), strict=True)]).mean(0)

    eye = torch.eye(chart.stiffs)
    before, after = ((mean_curvature(c) - eye).norm() / eye.norm() for c in (chart, new))
    assert before > 0.1  # what the bonded terms alone miss
    assert after < 0.03
    assert torch.equal(chart.mean, chart_of(SEQUENCE).mean)  # the old chart is left as it was
    assert Response(new, energy, steps=1)(tau).median(0).values.abs().max() < 0.3  # and the new mean is in the middle


def test_refining_nothing_leaves_the_curvature():
    chart = chart_of(SEQUENCE)
    new = refined(law(chart, lambda x: (x * torch.nan).sum((-1, -2))), conformers(2))
    assert torch.allclose(new.root, chart.root, atol=1e-6)
    assert torch.allclose(new.mean, chart.mean)


def test_what_the_refined_chart_keeps_of_the_curvature_is_all_but_the_pairs():
    chart, energy, tau = chart_of(SEQUENCE), potential(), conformers(12)
    stiff = law(chart, energy)
    pairs, response, new = stiff.curvature, stiff.response, refined(stiff, tau)
    assert torch.equal(chart.rest, chart.curvature)  # bonded, all of it is constant
    z = stiff.relaxed(tau)
    whole = torch.stack([chart.root @ curvature(response, t, m) @ chart.root for t, m in zip(tau, z, strict=True)])
    soft = pairs.rows
    known = pairs(chart.inverse(tau, z)[0]) + new.rest[soft][:, soft]
    fixed = new.curvature[soft][:, soft].expand_as(known)
    off, before = ((found - whole[:, soft][:, :, soft]).norm() for found in (known, fixed))
    assert off < 0.5 * before


def test_conformers_that_are_not_at_rest_have_no_say():
    """What the second derivatives of the coordinates themselves add on a slope would not average out."""
    chart, energy, tau = chart_of(SEQUENCE), potential(), conformers(12)
    clash = torch.full_like(tau[:4], 0.1)
    stiff = law(chart, energy, steps=0)
    relaxed = stiff.relaxed
    stiff.relaxed = lambda torsions, near: torch.cat(
        [relaxed(torsions[:12], near), torsions.new_zeros(4, chart.stiffs)]
    )
    slope = stiff.response.slope(clash, clash.new_zeros(4, chart.stiffs))[1].norm(dim=1)
    assert slope.min() > 2
    found, alone = refined(stiff, torch.cat([tau, clash])), refined(law(chart, energy, 0), tau)
    assert torch.allclose(found.rest, alone.rest, rtol=1e-9, atol=1e-6)


def test_the_relaxed_geometry_is_where_the_slope_is_zero():
    chart, energy, tau = chart_of(SEQUENCE), potential(), conformers(20)
    stiff = law(chart, energy)
    rough, fine = (stiff.response.slope(tau, z)[1].norm(dim=1) for z in (stiff.response(tau), stiff.relaxed(tau)))
    assert fine.median() < 0.02
    assert rough.median() > 5 * fine.median()


def test_a_few_conformers_say_what_all_of_them_have_in_common():
    chart, energy, tau = chart_of(SEQUENCE), potential(), conformers(12)
    all_, few = refined(law(chart, energy), tau), refined(law(chart, energy), tau, differenced=4)
    bonded = (chart.curvature - all_.curvature).norm()
    assert (few.curvature - all_.curvature).norm() < 0.2 * bonded
