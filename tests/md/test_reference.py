"""Langevin dynamics: the temperature and the distribution that it must have, and that it repeats itself bit for bit."""

from dataclasses import replace
from functools import cache

import numpy as np
import openmm
import pytest
import torch

from timewarp.kernel import Kernel, run
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.reference import PROTOCOLS, LangevinMD, Phase, Unstable
from timewarp.md.system import prepare_sequence
from timewarp.state import State
from timewarp.units import BOLTZMANN, kT

built = cache(prepare_sequence)


def started(md, positions, chains=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.as_tensor(positions, dtype=torch.float64).expand(chains, -1, -1)
    return md.init(State.at(x, 3, rng)), rng


def frames(md, positions, steps, chains=1, seed=0):
    phase, rng = started(md, positions, chains, seed)
    found = [info for _, info in run(md, phase, steps, rng)]
    return {name: torch.cat([info[name] for info in found]) for name in found[0]}


def springs(count, stiffness, mass):
    """Independent particles, each on a spring to the origin."""
    system = openmm.System()
    force = openmm.CustomExternalForce("k/2*(x^2+y^2+z^2)")
    force.addGlobalParameter("k", stiffness)
    for _ in range(count):
        force.addParticle(system.addParticle(mass), [])
    system.addForce(force)
    return system


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("temperature", [310.0, 500.0])
def test_a_harmonic_oscillator_has_its_variance(protocol, temperature):
    count, stiffness = 1000, 2000.0
    integration = PROTOCOLS[protocol]._replace(friction=5.0)  # what it averages to does not depend on the friction
    stride = round(0.5 / integration.step)
    md = LangevinMD(springs(count, stiffness, 12.0), temperature, integration, stride, frames=6)
    found = frames(md, np.zeros((count, 3)), 1)
    x, kinetic = found["positions"][2:], found["kinetic"][2:]
    error = np.sqrt(2 / (x.numel() / 4))  # frames are 2.5 relaxation times apart
    assert error < 0.03
    assert float(x.square().mean()) == pytest.approx(kT(temperature) / stiffness, rel=4 * error)
    assert float(kinetic.mean()) == pytest.approx(1.5 * count * kT(temperature), rel=4 * error)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_peptide_has_its_temperature(protocol):
    prepared = built("AA")
    md = LangevinMD.of(prepared, protocol, 310.0, interval=0.05, chains=3)
    # strong friction: it relaxes in the time that a test has, and the temperature does not depend on it
    md = replace(md, integration=md.integration._replace(friction=20.0), frames=20 if protocol == "paper" else 80)
    kinetic = frames(md, prepared.positions, 1, chains=3)["kinetic"][5:]
    temperature = 2 * kinetic / (md.freedoms() * BOLTZMANN)
    assert float(temperature.mean()) == pytest.approx(310.0, rel=0.06)


def test_rigid_bonds_are_rigid_on_the_potential_of_the_free_ones():
    prepared = built("ACE-HIP-NME")
    md = LangevinMD.of(prepared, "tuned", interval=0.2)
    pairs = [(a.index, b.index) for a, b in prepared.topology.bonds() if "H" in (a.element.symbol, b.element.symbol)]
    assert md.freedoms() == 3 * len(prepared.positions) - len(pairs)
    found = frames(replace(md, frames=3), prepared.positions, 1)
    x = found["positions"].flatten(0, 1)
    i, j = torch.tensor(pairs).T
    lengths = (x[:, i] - x[:, j]).norm(dim=-1)
    assert (lengths - lengths[0]).abs().max() < 1e-6
    free = OpenMMEnergy(prepared.system, platform="Reference").kilojoules(x)[0]
    torch.testing.assert_close(found["potential"].flatten(), free, atol=2e-3, rtol=0)


def test_masses_are_moved_and_not_made():
    prepared = built("ACE-HIP-NME")
    before, after = (
        np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
        for system in (prepared.system, LangevinMD.of(prepared, "tuned").system)
    )
    hydrogen = np.array([atom.element.symbol == "H" for atom in prepared.topology.atoms()])
    assert after.sum() == pytest.approx(before.sum())
    assert after[hydrogen] == pytest.approx(3.0)
    assert after.min() > 2.9
    paper = LangevinMD.of(prepared, "paper").system
    assert [paper.getParticleMass(i)._value for i in range(len(before))] == before.tolist()
    assert paper.getNumConstraints() == 0


def test_protocols_are_those_of_the_design():
    paper, tuned = PROTOCOLS["paper"], PROTOCOLS["tuned"]
    assert (paper.step, paper.friction, paper.rigid, paper.hydrogen) == (0.0005, 0.3, False, None)
    assert (tuned.step, tuned.friction, tuned.rigid, tuned.hydrogen) == (0.004, 1.0, True, 3.0)
    assert LangevinMD.of(built("AA"), "tuned", interval=1.0).stride == 250
    assert LangevinMD.of(built("AA"), "paper", interval=1.0).stride == 2000


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def test_it_repeats_itself_bit_for_bit_and_only_with_the_same_seed():
    prepared = built("AA")
    md = replace(LangevinMD.of(prepared, "tuned", interval=0.04, chains=3), frames=4, workers=1)
    assert isinstance(md, Kernel)
    found = frames(md, prepared.positions, 3, chains=3)
    assert same(found, frames(md, prepared.positions, 3, chains=3))
    assert same(found, frames(replace(md, workers=3), prepared.positions, 3, chains=3))
    assert not same(found, frames(md, prepared.positions, 3, chains=3, seed=1))
    last = found["positions"][-1]
    assert (last[0] - last[1]).abs().max() > 1e-3  # chains go their own ways
    # a step of fewer frames gives the first of them
    phase, rng = started(md, prepared.positions, 3)
    _, short = replace(md, frames=2).step(phase, rng)
    assert same(short, {name: value[:2] for name, value in found.items()})


def test_a_step_is_pure():
    prepared = built("AA")
    md = replace(LangevinMD.of(prepared, "tuned", interval=0.02), frames=2)
    phase, rng = started(md, prepared.positions)
    kept = Phase(phase.positions.clone(), phase.velocities.clone())
    following, _ = md.step(phase, rng)
    md.step(following, rng)
    assert torch.equal(phase.positions, kept.positions)
    assert torch.equal(phase.velocities, kept.velocities)
    again, _ = md.step(phase, started(md, prepared.positions)[1])
    assert torch.equal(again.positions, following.positions)
    assert torch.equal(again.velocities, following.velocities)


def test_what_blows_up_is_said_in_one_line():
    prepared = built("AA")
    md = LangevinMD.of(prepared, "paper", interval=0.05)
    long = replace(md, integration=md.integration._replace(step=0.006))  # bonds to hydrogen have a period of 10 fs
    with pytest.raises(Unstable, match=r"^expected a stable integration, got .*in chain 0 within 100 steps") as raised:
        frames(long, prepared.positions, 1)
    assert "\n" not in str(raised.value)
    # heat alone, while all numbers are finite
    phase, rng = started(md, prepared.positions)
    with pytest.raises(Unstable, match="too much kinetic energy"):
        replace(md, stride=1).step(Phase(phase.positions, 6 * phase.velocities), rng)
    replace(md, stride=1, frames=1).step(Phase(phase.positions, 2 * phase.velocities), rng)


def test_a_bond_without_a_length_cannot_be_made_rigid():
    prepared = built("AA")
    system = openmm.XmlSerializer.clone(prepared.system)
    kinds = [type(force).__name__ for force in system.getForces()]
    system.removeForce(kinds.index("HarmonicBondForce"))
    with pytest.raises(ValueError, match=r"expected a harmonic bond between .* to make rigid, found none"):
        LangevinMD.of(replace(prepared, system=system), "tuned")
