"""OpenMM as the reference energy: laws that hold for any System on any platform."""

from functools import cache

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from timewarp.kernel import Energy
from timewarp.md.energy import OpenMMEnergy, fingerprint
from timewarp.md.platforms import platforms
from timewarp.md.system import prepare_sequence
from timewarp.units import kT

built = cache(prepare_sequence)
HERE = [name for name in platforms() if name in ("Reference", "CPU")]


def pair(k=500.0, length=0.2):
    """Two atoms on a spring, whose energy can be told by hand."""
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    force.addBond(system.addParticle(1.0), system.addParticle(1.0), length, k)
    system.addForce(force)
    return system


def distorted(count, width=0.005):
    x = torch.tensor(built("AS").positions)
    rng = torch.Generator().manual_seed(0)
    return x + width * torch.randn(count, *x.shape, generator=rng, dtype=x.dtype)


@pytest.mark.parametrize("platform", [*HERE, None])
@pytest.mark.parametrize("temperature", [310.0, 400.0])
def test_a_spring_has_the_energy_of_a_spring(platform, temperature):
    energy = OpenMMEnergy(pair(), temperature, platform)
    assert isinstance(energy, Energy)
    r = torch.tensor([0.1, 0.2, 0.35], dtype=torch.float64)
    x = torch.zeros(3, 2, 3, dtype=torch.float64)
    x[:, 1, 2] = r
    value, slope = energy.kilojoules(x, gradient=True)
    torch.testing.assert_close(value, 250.0 * (r - 0.2) ** 2, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope[:, 1, 2], 500.0 * (r - 0.2), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(energy(x), value / kT(temperature))
    assert energy.evaluations == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 2)])
def test_shape_and_precision_are_those_of_the_positions(shape, dtype):
    x = torch.rand(*shape, 2, 3, dtype=dtype)
    value, slope = OpenMMEnergy(pair(), platform="Reference").kilojoules(x, gradient=True)
    assert (value.shape, value.dtype) == (torch.Size(shape), dtype)
    assert (slope.shape, slope.dtype) == (x.shape, dtype)


def test_platforms_agree():
    x = distorted(3)
    reference, slope = OpenMMEnergy(built("AS").system, platform="Reference").kilojoules(x, gradient=True)
    other, gradient = OpenMMEnergy(built("AS").system, platform="CPU").kilojoules(x, gradient=True)
    torch.testing.assert_close(other, reference, atol=2e-3, rtol=0)
    torch.testing.assert_close(gradient, slope, atol=0.5, rtol=1e-4)


def test_gradient_is_that_of_finite_differences_through_autograd():
    energy = OpenMMEnergy(built("AS").system, platform="Reference")
    x = distorted(2).requires_grad_()
    weight = torch.tensor([2.0, -1.0], dtype=x.dtype)
    (found,) = torch.autograd.grad((weight * energy(x)).sum(), x)
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    step = 1e-6
    with torch.no_grad():
        numeric = (energy(x + step * along) - energy(x - step * along)) / (2 * step)
    torch.testing.assert_close((found * along).sum((1, 2)), weight * numeric, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("platform", HERE)
def test_a_bad_configuration_is_infinite_alone_and_leaves_no_trace(platform):
    energy = OpenMMEnergy(built("AS").system, platform=platform)
    good = distorted(1)[0]
    bad = {"nan": good.clone(), "inf": good.clone(), "clash": good.clone(), "far": good * 1e300}
    bad["nan"][4, 1], bad["inf"][0, 0], bad["clash"][5] = torch.nan, torch.inf, bad["clash"][6]
    alone, slope = energy.kilojoules(good, gradient=True)
    for name, x in bad.items():
        values, slopes = energy.kilojoules(torch.stack([good, x, good]), gradient=True)
        assert values[1] == torch.inf, name
        assert (slopes[1] == 0).all(), name
        torch.testing.assert_close(values[[0, 2]], alone.expand(2), atol=1e-3, rtol=0)
        torch.testing.assert_close(slopes[[0, 2]], slope.expand(2, -1, -1), atol=0.1, rtol=0)
    x = torch.stack([good, bad["nan"]]).requires_grad_()
    (found,) = torch.autograd.grad(energy(x).sum(), x)
    torch.testing.assert_close(found[0], slope / energy.kT, atol=0.1, rtol=0)
    assert (found[1] == 0).all()


def test_an_evaluation_that_openmm_refuses_is_infinite_alone():
    def compute(state):
        x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if x[1, 0] > 1.0:
            raise ValueError("too far")
        return x[1, 0], -np.array([[0.0, 0, 0], [1.0, 0, 0]])

    system = pair()
    system.removeForce(0)
    system.addForce(openmm.PythonForce(compute))
    x = torch.zeros(4, 2, 3, dtype=torch.float64)
    x[:, 1, 0] = torch.tensor([0.5, 2.0, 0.25, 3.0])
    value, slope = OpenMMEnergy(system, platform="Reference").kilojoules(x, gradient=True)
    assert value.tolist() == [0.5, torch.inf, 0.25, torch.inf]
    assert slope[:, 1, 0].tolist() == [1.0, 0.0, 1.0, 0.0]


def test_the_fastest_platform_is_chosen_at_the_first_evaluation():
    energy = OpenMMEnergy(built("AS").system)
    assert energy.platform is None
    energy(distorted(1))
    assert energy.platform in platforms()
    assert energy.platform != "Reference"  # several times slower than CPU on a peptide
    assert energy.evaluations == 1


def test_any_forces_will_do():
    prepared = built("AS")
    files = ("amber19/protein.ff19SB.xml", "implicit/gbn2.xml")
    system = app.ForceField(*files).createSystem(prepared.topology, nonbondedMethod=app.NoCutoff)
    x = torch.tensor(prepared.positions)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(prepared.positions)
    expected = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    assert float(OpenMMEnergy(system, platform="Reference").kilojoules(x)[0]) == pytest.approx(expected, abs=1e-9)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="expected an OpenMM platform that works here, got Abacus"):
        OpenMMEnergy(pair(), platform="Abacus")
    with pytest.raises(ValueError, match=r"expected positions \[..., 2, 3\] in nm, got \(4, 3, 3\)"):
        OpenMMEnergy(pair(), platform="Reference")(torch.zeros(4, 3, 3))
    with pytest.raises(ValueError, match="expected a positive temperature"):
        OpenMMEnergy(pair(), temperature=0.0)


def test_a_fingerprint_tells_potentials_apart():
    assert fingerprint(pair()) == fingerprint(pair())
    assert fingerprint(pair()) != fingerprint(pair(k=500.0000001))
    assert fingerprint(built("AS").system) == fingerprint(prepare_sequence("AS").system)
