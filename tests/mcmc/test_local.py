"""Hamiltonian Monte Carlo and Metropolised Langevin: exact at any step size, whatever the masses."""

import math
from dataclasses import replace

import pytest
import torch

from timewarp.assemble.energy import energy_of
from timewarp.kernel import run
from timewarp.mcmc import Hamiltonian, accept, langevin, local
from timewarp.md import prepare_sequence
from timewarp.state import State
from timewarp.units import kT

from .toys import GAUSS, WELLS, Separable, ergodicity, invariance, seeded

ONE = torch.ones(1)
# coarse steps, so that rejections matter: the error of the integrator must be corrected, not small
COARSE = Hamiltonian(WELLS, ONE, 0.45, 4)
FLOWING = Hamiltonian(WELLS, ONE, 0.4, 1, persistence=0.9, jitter=0.0)


@pytest.mark.parametrize("target", [GAUSS, WELLS], ids=["gauss", "wells"])
@pytest.mark.parametrize("kernel", [COARSE, FLOWING], ids=["hmc", "langevin"])
def test_leaves_the_target_invariant(kernel, target):
    assert invariance(replace(kernel, energy=target), target, 40) > 0.01


@pytest.mark.parametrize("kernel", [replace(COARSE, step_size=0.3), langevin(WELLS, ONE, 0.25, 1.0)])
def test_comes_to_the_target_from_far_off(kernel):
    assert ergodicity(kernel, WELLS, 1200, at=1.0) > 0.01


def test_the_masses_do_not_change_the_law():
    target = Separable(atoms=2, barrier=2.0, tilt=0.5)
    assert invariance(Hamiltonian(target, torch.tensor([0.6, 9.0]), 0.35, 5), target, 40) > 0.01


@pytest.mark.parametrize("wrong", [replace(WELLS, tilt=0.0), replace(WELLS, sigma=1.3)])
@pytest.mark.parametrize("kernel", [COARSE, FLOWING], ids=["hmc", "langevin"])
def test_fails_on_the_wrong_target(kernel, wrong):
    assert invariance(kernel, wrong, 80) < 1e-6


def test_fails_without_the_kinetic_energy(monkeypatch):
    monkeypatch.setattr(local, "_kinetic", lambda z: z.new_zeros(len(z)))
    assert invariance(COARSE, WELLS, 40) < 1e-6


def test_fails_with_the_log_ratio_flipped(monkeypatch):
    right = accept.metropolis
    monkeypatch.setattr(accept, "metropolis", lambda u, v, log_ratio, rng: right(u, v, -log_ratio, rng))
    assert invariance(COARSE, WELLS, 40) < 1e-6


def test_fails_without_the_test(monkeypatch):
    monkeypatch.setattr(accept, "metropolis", lambda u, v, log_ratio, rng: v.isfinite())
    assert invariance(COARSE, WELLS, 40) < 1e-6


def test_fails_with_a_trajectory_that_cannot_be_reversed():
    class Broken(Hamiltonian):
        def _trajectory(self, x, energy, z, g, s):
            for _ in range(self.steps):
                x = x + s * z
                energy, g = self._slope(x)
                z = z - s * g
            return x, energy, z, g

    assert invariance(Broken(WELLS, ONE, 0.45, 4), WELLS, 40) < 1e-6


def test_fails_when_momenta_do_not_turn_round_on_rejection():
    class Broken(Hamiltonian):
        def step(self, phase, rng):
            new, info = super().step(phase, rng)
            turned = torch.where(info["accepted"][:, None, None], new.momenta, -new.momenta)
            return replace(new, momenta=turned), info

    kernel = Broken(WELLS, ONE, 0.6, 1, persistence=0.9, jitter=0.0)
    assert invariance(Hamiltonian(WELLS, ONE, 0.6, 1, 0.9, 0.0), WELLS, 60) > 0.01
    assert invariance(kernel, WELLS, 60) < 1e-6


def test_fails_without_the_refresh(monkeypatch):
    monkeypatch.setattr(local, "_normal", lambda x, rng: torch.zeros_like(x))
    assert invariance(COARSE, WELLS, 40) < 1e-6


def test_the_integrator_is_reversible_and_of_second_order():
    x = WELLS.draw(50, seeded(0))
    z = torch.randn(x.shape, generator=seeded(1), dtype=x.dtype)
    errors = []
    for steps in (20, 40):
        kernel = Hamiltonian(WELLS, ONE, 1.0 / steps, steps)
        s = torch.full((1, 1, 1), 1.0 / steps, dtype=x.dtype)
        energy, g = kernel._slope(x)
        x1, energy1, z1, g1 = kernel._trajectory(x, energy, z, g, s)
        back, _, z0, _ = kernel._trajectory(x1, energy1, -z1, g1, s)
        torch.testing.assert_close(back, x)
        torch.testing.assert_close(-z0, z)
        errors.append((energy1 + local._kinetic(z1) - energy - local._kinetic(z)).abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_a_heavy_atom_moves_as_the_root_of_its_mass():
    """Free particles: x' - x = epsilon steps z / sqrt(m), with z ~ N(0, 1)."""
    masses = torch.tensor([1.0, 4.0, 16.0])
    kernel = Hamiltonian(lambda x: 0 * x.sum((-2, -1)), masses, 0.1, 5, jitter=0.0)
    x = torch.zeros(20_000, 3, 3, dtype=torch.float64)
    phase, info = kernel.step(kernel.init(State.at(x)), seeded(0))
    assert info["accepted"].all()
    spread = phase.state.positions.std((0, 2))
    assert spread.tolist() == pytest.approx([0.5, 0.25, 0.125], rel=0.02)


def test_langevin_keeps_what_friction_leaves_of_the_momenta():
    kernel = langevin(GAUSS, ONE, 0.1, friction=2.0)
    assert kernel.steps == 1
    assert kernel.persistence == pytest.approx(0.8187, abs=1e-4)


@pytest.mark.parametrize("kernel", [COARSE, FLOWING], ids=["hmc", "langevin"])
def test_pure_independent_and_resumable(kernel):
    x = WELLS.draw(5, seeded(0))
    ends = []
    for start in (x, x, x.index_fill(0, torch.tensor([2]), 1.5)):
        phase, rng = kernel.init(State.at(start)), seeded(3)
        for i, (phase, _) in enumerate(run(kernel, phase, 20, rng)):  # noqa: B020
            if i == 9:
                phase9, rng9 = {k: v.clone() for k, v in phase.tensors().items()}, rng.get_state()
        ends.append(phase.tensors())
        again = [p for p, _ in run(kernel, kernel.restore(phase9), 10, seeded(0).set_state(rng9))][-1].tensors()
        assert all(torch.equal(v, again[k]) for k, v in ends[-1].items())
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    same = (ends[0]["positions"] == ends[2]["positions"]).flatten(1).all(1)
    assert same.tolist() == [True, True, False, True, True]


def test_what_it_remembers_is_of_the_present():
    phase = COARSE.init(State.at(WELLS.draw(400, seeded(0))))
    accepted = 0
    for phase, info in run(COARSE, phase, 5, seeded(1)):  # noqa: B020
        energy, gradient = COARSE._slope(phase.state.positions)
        torch.testing.assert_close(phase.energy, energy)
        torch.testing.assert_close(phase.gradient, gradient)
        assert info["evaluations"] == 4 * 400
        accepted += info["accepted"].sum().item() / 2000
    assert 0.3 < accepted < 0.95


def test_what_is_not_finite_is_never_entered():
    def walled(x):
        return torch.where(x[..., 0, 0] > 0.5, torch.nan, GAUSS(x))

    start = GAUSS.draw(3000, seeded(0))
    start = start[start[:, 0, 0] < 0.5]
    kernel = Hamiltonian(walled, ONE, 0.4, 3)
    for phase, _ in run(kernel, kernel.init(State.at(start)), 10, seeded(1)):
        assert phase.state.positions.isfinite().all()
        assert (phase.state.positions[:, 0, 0] <= 0.5).all()


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"expected positive masses in amu, got \[1.0, 0.0\]; is there a virtual site"):
        Hamiltonian(GAUSS, torch.tensor([1.0, 0.0]), 0.1)
    with pytest.raises(ValueError, match=r"expected step_size > 0, steps >= 1, .* got 0.1, 0, 0.0, 0.2"):
        Hamiltonian(GAUSS, ONE, 0.1, 0)
    with pytest.raises(ValueError, match="expected an energy that torch can differentiate"):
        Hamiltonian(lambda x: GAUSS(x.detach()), ONE, 0.1).init(State.at(torch.zeros(1, 1, 3)))


def test_a_peptide_at_one_femtosecond():
    """The batched potential in float32: nearly all trajectories of 10 fs are accepted, and energies stay its own."""
    peptide = prepare_sequence("AA")
    energy, molecule, _ = energy_of(peptide, 310.0)
    kernel = Hamiltonian(energy, molecule.masses, 0.001 * math.sqrt(kT(310.0)), 10)
    x = molecule.reference.float().expand(8, -1, -1)
    infos = []
    for phase, info in run(kernel, kernel.init(State.at(x)), 25, seeded(0)):  # noqa: B007
        infos.append(info["accepted"].double().mean().item())
    assert phase.state.positions.dtype == torch.float32
    assert 0.8 < sum(infos) / len(infos) <= 1
    # from the relaxed structure it has taken up about kT/2 for each of 69 coordinates
    rise = (phase.energy - energy(x).double()).mean().item()
    assert 20 < rise < 50
    torch.testing.assert_close(phase.energy, energy(phase.state.positions).double(), rtol=0, atol=1e-2)
