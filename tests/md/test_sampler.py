"""A sampler inside a Simulation: the laws it keeps, the files that reporters leave, and what it refuses."""

import io
import math

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from md.harmonic import POINTS, T, energy_law, prepared, pvalue, simulation, spring_kernel, spring_pvalues, springs
from openmm import app, unit

from timewarp.kernel import Kernel
from timewarp.mcmc import Explore
from timewarp.md import InputError, TimewarpSampler
from timewarp.md.moves import PotentialChanged
from timewarp.units import kT

pytestmark = pytest.mark.usefixtures("few_conformers")


def spring_simulation(**options):
    return simulation(*springs(), POINTS, **options)


def dipeptide(**options):
    p = prepared()
    return simulation(p.topology, p.system, p.positions, **{"step": 0.001} | options)


def positions_of(sim):
    state = sim.context.getState(positions=True)
    return state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def frames_of(sampler, frames, steps):
    """Positions, kinetic and potential energies in kT, one each `steps` steps."""
    kept = []
    for _ in range(frames):
        sampler.step(steps)
        state = sampler.simulation.context.getState(positions=True, energy=True)
        energies = [
            e.value_in_unit(unit.kilojoule_per_mole) for e in (state.getKineticEnergy(), state.getPotentialEnergy())
        ]
        kept.append((np.array(state.getPositions(asNumpy=True)._value), *energies))
    x, kinetic, potential = zip(*kept, strict=True)
    return np.array(x), np.array(kinetic) / kT(T), np.array(potential) / kT(T)


def test_springs_keep_their_law_and_their_temperature():
    """Little friction, so that the velocities that a move leaves are felt for a while."""
    sampler = TimewarpSampler(spring_simulation(friction=0.2), every=20, seed=3, proposals=2, kernel=spring_kernel())
    x, kinetic, potential = frames_of(sampler, 600, 25)
    assert min(spring_pvalues(x)) > 0.01 / 6
    assert pvalue(kinetic, energy_law) > 0.01
    assert pvalue(potential, energy_law) > 0.01
    assert 0.2 < sampler.acceptance < 0.8


@pytest.mark.parametrize("broken", ["accepts all", "hot velocities", "lost velocities"])
def test_these_laws_are_seen_to_be_broken(broken, monkeypatch):
    sim = spring_simulation(friction=0.2)
    if broken == "accepts all":
        from timewarp.mcmc import accept

        monkeypatch.setattr(
            accept, "metropolis", lambda old, new, log_ratio, rng: torch.ones(old.shape, dtype=torch.bool)
        )
    else:
        factor, draw = 2.0 if broken == "hot velocities" else 0.0, sim.context.setVelocitiesToTemperature
        monkeypatch.setattr(sim.context, "setVelocitiesToTemperature", lambda t, seed: draw(factor * t, seed))
    sampler = TimewarpSampler(sim, every=20, seed=3, proposals=2, kernel=spring_kernel())
    x, kinetic, potential = frames_of(sampler, 300, 25)
    assert min(*spring_pvalues(x), pvalue(kinetic, energy_law), pvalue(potential, energy_law)) < 1e-4


def test_reporters_are_served_as_without_moves(tmp_path):
    sim = dipeptide()
    sampler = TimewarpSampler(sim, every=20, seed=0, proposals=4)
    table = io.StringIO()
    sim.reporters += [
        app.StateDataReporter(table, 10, step=True, time=True, potentialEnergy=True, temperature=True),
        app.DCDReporter(str(tmp_path / "x.dcd"), 20),
        app.XTCReporter(str(tmp_path / "x.xtc"), 40),
        app.CheckpointReporter(str(tmp_path / "x.chk"), 100),
    ]
    sampler.step(70)
    sampler.step(50)
    assert sim.currentStep == 120
    assert sampler.proposed == 4 * 6
    assert 0 < sampler.accepted <= sampler.proposed
    rows = np.genfromtxt(io.StringIO(table.getvalue().lstrip("#")), delimiter=",", names=True)
    assert rows["Step"].tolist() == list(range(10, 121, 10))
    assert rows["Time_ps"] == pytest.approx(rows["Step"] * 0.001)
    assert 200 < rows["Temperature_K"].mean() < 420
    topology = mdtraj.Topology.from_openmm(sim.topology)
    dcd = mdtraj.load(str(tmp_path / "x.dcd"), top=topology)
    xtc = mdtraj.load(str(tmp_path / "x.xtc"), top=topology)
    assert (len(dcd), len(xtc)) == (6, 3)
    np.testing.assert_allclose(dcd.xyz[1::2], xtc.xyz, atol=1e-3)
    assert (tmp_path / "x.chk").stat().st_size
    assert sim.reporters[-1] is not sampler


def test_a_checkpoint_restart_goes_on(tmp_path):
    """With OpenMM's own checkpoint: the same positions, velocities and step, and moves where they are due."""
    sim = dipeptide()
    sampler = TimewarpSampler(sim, every=20, seed=0, proposals=2)
    sim.reporters.append(app.CheckpointReporter(str(tmp_path / "x.chk"), 50))
    sampler.step(50)
    state = sim.context.getState(positions=True, velocities=True)
    again = dipeptide(seed=9)
    other = TimewarpSampler(again, every=20, seed=1, proposals=2).install()
    again.loadCheckpoint(str(tmp_path / "x.chk"))
    same = again.context.getState(positions=True, velocities=True)
    assert again.currentStep == 50
    np.testing.assert_array_equal(same.getPositions(asNumpy=True)._value, state.getPositions(asNumpy=True)._value)
    np.testing.assert_array_equal(same.getVelocities(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value)
    again.step(9)
    assert other.proposed == 0
    again.step(1)
    assert (other.proposed, again.currentStep) == (2, 60)


def test_saved_and_loaded_it_goes_on_bit_for_bit(tmp_path):
    file = tmp_path / "x.timewarp"
    sim = dipeptide()
    sampler = TimewarpSampler(sim, every=10, seed=0, proposals=3)
    sampler.step(35)
    sampler.save(file)
    sampler.step(35)
    again = dipeptide(seed=9)
    again.step(5)  # another geometry, which the chart of a new sampler would be made from
    other = TimewarpSampler(again, every=10, seed=1, proposals=3)
    other.load(file)
    assert (other.proposed, again.currentStep) == (9, 35)
    other.step(35)
    assert (other.proposed, other.accepted) == (sampler.proposed, sampler.accepted)
    np.testing.assert_array_equal(positions_of(again), positions_of(sim))
    with pytest.raises(InputError, match="every=10 and proposals=3, not 20 and 3"):
        TimewarpSampler(again, every=20, seed=1, proposals=3).load(file)
    (tmp_path / "cut").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="cut: expected what the sampler of the same Simulation saved"):
        other.load(tmp_path / "cut")


def test_installed_it_moves_in_plain_steps():
    sim = spring_simulation()
    sampler = TimewarpSampler(sim, every=0.02 * unit.picoseconds, kernel=spring_kernel(), proposals=1).install()
    assert sampler.every == 10
    sim.step(25)
    sampler.step(25)
    assert sampler.proposed == 5
    sim.runForClockTime(0.05 * unit.seconds)
    assert sampler.proposed == sim.currentStep // 10
    sampler.uninstall()
    before = sampler.proposed
    sim.step(20)
    assert sampler.proposed == before
    assert sim.reporters == []


def test_the_same_seed_makes_the_same_moves():
    runs = []
    for _ in range(2):
        sampler = TimewarpSampler(spring_simulation(), every=10, seed=5, kernel=spring_kernel())
        sampler.step(100)
        runs.append((sampler.accepted, positions_of(sampler.simulation)))
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_a_move_keeps_the_pose_and_draws_velocities():
    sim = dipeptide()
    sim.step(10)
    sim.context.setPositions(positions_of(sim) + np.array([3e3, 0, 0]))  # single precision alone would lose digits here
    sampler = TimewarpSampler(sim, seed=0)
    masses = np.array([sim.system.getParticleMass(i)._value for i in range(sim.system.getNumParticles())])
    before = sim.context.getState(positions=True, velocities=True)
    x, v = (before.getPositions(asNumpy=True)._value, before.getVelocities(asNumpy=True)._value)
    for _ in range(10):
        if sampler.move():
            break
        after = sim.context.getState(positions=True, velocities=True)  # rejected: nothing has changed
        np.testing.assert_array_equal(after.getPositions(asNumpy=True)._value, x)
        np.testing.assert_array_equal(after.getVelocities(asNumpy=True)._value, v)
    after = sim.context.getState(positions=True, velocities=True)
    moved = after.getPositions(asNumpy=True)._value
    assert np.abs(moved - x).max() > 0.05
    np.testing.assert_allclose(masses @ moved / masses.sum(), masses @ x / masses.sum(), atol=2e-6)
    velocities = after.getVelocities(asNumpy=True)._value
    assert not np.isclose(velocities, v).any()
    heat = (masses[:, None] * velocities**2).sum() / (3 * len(masses) * kT(T))
    assert abs(heat - 1) < 5 * math.sqrt(2 / (3 * len(masses)))


def test_the_temperature_is_read_before_each_move():
    sim = spring_simulation(friction=5.0)
    sampler = TimewarpSampler(sim, every=20, seed=2, proposals=4, kernel=spring_kernel())
    sampler.step(20)
    sim.integrator.setTemperature(600 * unit.kelvin)
    x, _, potential = frames_of(sampler, 300, 25)
    assert min(spring_pvalues(x[20:], 600.0)) > 0.01 / 6
    assert pvalue(potential[20:] * T / 600, energy_law) > 0.01
    assert pvalue(potential[20:], energy_law) < 1e-4
    sim.integrator.setTemperature(T * unit.kelvin)
    sampler.step(20)
    assert len(sampler._moves.bound) == 2


def test_thermostats_and_temperatures_that_are_told():
    topology, system = springs()
    integrator = openmm.VerletIntegrator(0.002)
    sim = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    sim.context.setPositions(POINTS.numpy())
    with pytest.raises(InputError, match="keeps a temperature, found VerletIntegrator alone"):
        TimewarpSampler(sim, kernel=spring_kernel())
    assert TimewarpSampler(sim, kernel=spring_kernel(), temperature=300 * unit.kelvin).move() >= 0
    system.addForce(openmm.AndersenThermostat(330, 1.0))
    sim = app.Simulation(
        topology, system, openmm.VerletIntegrator(0.002), openmm.Platform.getPlatformByName("Reference")
    )
    sim.context.setPositions(POINTS.numpy())
    sampler = TimewarpSampler(sim, kernel=spring_kernel())
    (condition,) = sampler._moves.bound
    assert condition.temperature == 330.0
    assert dict(condition.parameters) == {"k": 500.0}


def test_a_potential_that_changes_is_noticed():
    sim = dipeptide()
    sampler = TimewarpSampler(sim, seed=0)
    (bonds,) = (f for f in sim.system.getForces() if isinstance(f, openmm.HarmonicBondForce))
    i, j, length, stiffness = bonds.getBondParameters(0)
    bonds.setBondParameters(0, i, j, length * 1.1, stiffness)
    sampler.move()  # the Context does not know of it yet
    bonds.updateParametersInContext(sim.context)
    with pytest.raises(PotentialChanged, match="of the moves too"):
        sampler.move()
    other = spring_simulation()
    other.step(200)
    with pytest.raises(PotentialChanged, match="of the moves too"):
        TimewarpSampler(other, kernel=lambda temperature: spring_kernel()(2 * temperature))


def test_a_force_of_ones_own_is_left_to_openmm():
    p = prepared()
    system = openmm.XmlSerializer.clone(p.system)
    own = openmm.CustomCompoundBondForce(2, "k*(distance(p1,p2)-0.6)^2")
    own.addGlobalParameter("k", 10.0)
    own.addBond([0, p.system.getNumParticles() - 1])
    system.addForce(own)
    sim = simulation(p.topology, system, p.positions, step=0.001)
    sim.context.setParameter("k", 20.0)
    sampler = TimewarpSampler(sim, seed=0, proposals=1)
    assert "OpenMM computes the energy" in sampler.notices[0]
    assert "CustomCompoundBondForce" in sampler.notices[0]


def with_(change):
    p = prepared()
    system = openmm.XmlSerializer.clone(p.system)
    topology, system, positions = change(p.topology, system, p.positions)
    return simulation(topology, system, positions, step=0.001)


def constrained(topology, system, positions):
    system.addConstraint(0, 1, 0.1)
    return topology, system, positions


def massless(topology, system, positions):
    system.setParticleMass(0, 0.0)
    return topology, system, positions


def held(topology, system, positions):
    force = openmm.CustomExternalForce("500*x^2")
    force.addParticle(0)
    system.addForce(force)
    return topology, system, positions


def periodic(topology, system, positions):
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    for other in [
        i for i, f in enumerate(system.getForces()) if isinstance(f, openmm.CustomGBForce | openmm.GBSAOBCForce)
    ]:
        system.removeForce(other)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    system.setDefaultPeriodicBoxVectors(*(5 * np.eye(3)))
    return topology, system, positions


def hydrated(topology, system, positions):
    both = app.Modeller(topology, positions * unit.nanometer)
    water = app.Topology()
    residue = water.addResidue("HOH", water.addChain())
    water.addAtom("O", app.element.oxygen, residue)
    both.add(water, np.array([[2.0, 2.0, 2.0]]) * unit.nanometer)
    return bare(both.topology, both.positions.value_in_unit(unit.nanometer))


def bare(topology, positions):
    system = openmm.System()
    for _ in topology.atoms():
        system.addParticle(12.0)
    return topology, system, np.array([list(x) for x in positions])


def twice(topology, system, positions):
    both = app.Modeller(topology, positions * unit.nanometer)
    both.add(topology, (positions + 3) * unit.nanometer)
    return bare(both.topology, both.positions.value_in_unit(unit.nanometer))


def long(topology, system, positions):
    from timewarp.md import build

    return bare(*build("G" * 10 + "A"))


def benzene(topology, system, positions):
    other = app.Topology()
    residue = other.addResidue("BNZ", other.addChain())
    for i in range(6):
        other.addAtom(f"C{i}", app.element.carbon, residue)
    return bare(other, np.eye(6, 3))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (constrained, "expected a System without constraints, found 1: .* constraints=None"),
        (massless, "expected atoms that all move, found 1 of mass 0"),
        (held, "potential that does not see where the molecule is"),
        (periodic, "found periodic boundary conditions"),
        (hydrated, "found 1 molecules of solvent: .* implicit solvent such as"),
        (twice, "expected one molecule whose bonds the topology has, found 2"),
        (long, "1 to 10 amino acids, found 11"),
        (benzene, "expected one peptide of 1 to 10 amino acids, found BNZ"),
    ],
)
def test_what_the_flow_cannot_move_is_refused_in_one_line(change, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        TimewarpSampler(with_(change))
    assert "\n" not in str(error.value)


def test_kernels_that_would_bias_are_refused():
    sim = spring_simulation()
    explore = Explore(spring_kernel()(T).energy, spring_kernel()(T).proposal, 1.0)
    assert isinstance(explore, Kernel)
    with pytest.raises((TypeError, ValueError), match="expected"):
        TimewarpSampler(sim, kernel=lambda temperature: explore)
    with pytest.raises(InputError, match="every 1 or more steps, got every=0"):
        TimewarpSampler(sim, every=0, kernel=spring_kernel())
    with pytest.raises(ValueError, match="at least 1 proposal a move, got 0"):
        TimewarpSampler(sim, proposals=0, kernel=spring_kernel())
