"""Steps that learn the curvature: their algebra on quadratic forms, and that they end at the bottom sooner."""

import pytest
import torch

from timewarp.flow import settling
from timewarp.flow.settling import quasi_newton, settled

from .test_response import conformers
from .test_stiff import law

DOUBLE = {"dtype": torch.float64}


def quadratic(count, size, seed=0):
    """(Hessians with eigenvalues about 1, steps, what these change of the slope)."""
    rng = torch.Generator().manual_seed(seed)
    half = torch.eye(size, **DOUBLE) + 0.2 * torch.randn(count, size, size, generator=rng, **DOUBLE)
    hessian = half @ half.mT
    steps = torch.randn(size, count, size, generator=rng, **DOUBLE)
    return hessian, steps, (hessian @ steps[..., None])[..., 0]


def test_the_last_change_gives_the_last_step():
    _, steps, changes = quadratic(5, 4)
    past = list(zip(steps, changes, strict=True))
    for count in (1, 2, 4):
        torch.testing.assert_close(quasi_newton(changes[count - 1], past[:count]), steps[count - 1])
    assert not torch.allclose(quasi_newton(changes[0], past), steps[0])  # of earlier ones only along conjugate steps


def test_conjugate_steps_give_newton_s():
    hessian, steps, _ = quadratic(5, 4)
    conjugate = []
    for step in steps:
        for other in conjugate:
            turned = (hessian @ other[..., None])[..., 0]
            step = step - other * (step * turned).sum(1, keepdim=True) / (other * turned).sum(1, keepdim=True)
        conjugate.append(step)
    past = [(step, (hessian @ step[..., None])[..., 0]) for step in conjugate]
    slope = steps[0] + 1.0
    torch.testing.assert_close(quasi_newton(slope, past), torch.linalg.solve(hessian, slope))


def test_each_row_is_alone_and_one_that_is_not_convex_learns_nothing():
    _, steps, changes = quadratic(3, 4)
    bent = torch.tensor([1.0, -1.0, 0.0], **DOUBLE)[:, None]
    past = [(steps[0], bent * changes[0])]
    found = quasi_newton(changes[1], past)
    torch.testing.assert_close(found[:1], quasi_newton(changes[1][:1], [(steps[0][:1], changes[0][:1])]))
    assert torch.equal(found[1:], changes[1][1:])
    assert torch.equal(quasi_newton(changes[1], []), changes[1])
    nothing = torch.zeros_like(steps[0])
    assert torch.equal(quasi_newton(changes[1], [(nothing, nothing)]), changes[1])


@pytest.fixture(scope="module")
def proline():
    return law("APS"), conformers(24, sequence="APS")


def test_it_ends_at_the_bottom_with_fewer_evaluations_than_newton_s_steps(proline, monkeypatch):
    stiff, tau = proline
    start = stiff.response(tau)

    def spent():
        before = stiff.response.asked
        mean, positions = settled(stiff, tau, start)
        asked = stiff.response.asked - before
        at = stiff.response.evaluate(tau, mean)
        torch.testing.assert_close(at.positions, positions)
        return at.energy + at.log_det, asked

    found, asked = spent()
    monkeypatch.setattr(settling, "quasi_newton", lambda slope, past: slope)
    plain, steps = spent()
    assert asked < 0.9 * steps
    at = stiff.response.evaluate(tau, stiff.relaxed(tau, 1e-6))
    assert (found - (at.energy + at.log_det)).median() < 0.03
    assert found.sum() <= plain.sum() + 0.1 * len(tau)


def test_it_never_ends_above_where_it_began(proline):
    stiff, tau = proline
    rough = stiff.chart.start(tau) + 0.5
    at = stiff.response.evaluate(tau, rough)
    mean, _ = settled(stiff, tau, rough)
    found = stiff.response.evaluate(tau, mean)
    assert (found.energy + found.log_det <= at.energy + at.log_det).all()


def test_from_where_the_energy_is_not_finite_it_goes_on(proline, monkeypatch):
    stiff, tau = proline
    start, evaluate = stiff.chart.start(tau) + 0.3, stiff.response.evaluate

    def spoilt(torsions, z):
        at = evaluate(torsions, z)
        lost = (z[:, None] == start).all(-1).any(1)
        return at._replace(energy=torch.where(lost, torch.nan, at.energy))

    monkeypatch.setattr(stiff.response, "evaluate", spoilt)
    mean, _ = settled(stiff, tau, start)
    before, after = evaluate(tau, start), evaluate(tau, mean)
    assert ((after.energy + after.log_det) < (before.energy + before.log_det)).float().mean() > 0.9
