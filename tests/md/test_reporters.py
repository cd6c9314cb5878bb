"""What OpenMM's own reporters write beside a sampler: every frame, step, time and temperature, and restarts."""

import csv
import struct

import numpy as np
import pytest
from md.harmonic import (
    POINTS,
    T,
    energy_law,
    pvalue,
    reduced_energies,
    simulation,
    spring_kernel,
    spring_pvalues,
    springs,
)
from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile
from openmm import app, unit

from timewarp.md import TimewarpSampler
from timewarp.units import kT

STEP = 0.002  # ps
FREEDOMS = 6


def spring_simulation(**options):
    return simulation(*springs(), POINTS, step=STEP, **options)


def sampler_of(sim, every=20, **options):
    return TimewarpSampler(sim, every=every, **{"seed": 1, "proposals": 4, "kernel": spring_kernel()} | options)


def phase_of(context):
    state = context.getState(positions=True, velocities=True)
    return np.stack([state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value])


class Witness:
    """A reporter that keeps what it is given."""

    def __init__(self, every):
        self.every, self.steps, self.positions, self.kinetic = every, [], [], []

    def describeNextReport(self, sim):
        left = self.every - sim.currentStep % self.every
        return {"steps": left, "periodic": None, "include": ["positions", "energy"]}

    def report(self, sim, state):
        self.steps.append(sim.currentStep)
        self.positions.append(state.getPositions(asNumpy=True)._value.copy())
        self.kinetic.append(state.getKineticEnergy()._value)


def table(file):
    with open(file) as lines:
        return [{k.strip('#"'): v for k, v in row.items()} for row in csv.DictReader(lines)]


def dcd(file):
    """(frames in nm; frames, first step, interval and step in ps as the header has them)."""
    with DCDTrajectoryFile(str(file)) as trajectory:
        x = trajectory.read()[0] / 10
    head = file.read_bytes()[8:48]
    count, first, interval = struct.unpack("<3i", head[:12])
    return x, (count, first, interval, struct.unpack("<f", head[36:40])[0] * 0.04888821)


@pytest.mark.parametrize("installed", [True, False])
def test_frames_steps_times_and_temperatures(tmp_path, installed):
    """Moves come every 20 steps: with some frames, between others; `step` is asked for odd numbers of steps."""
    sim = spring_simulation()
    witness = Witness(10)
    sampler = sampler_of(sim)
    sim.reporters += [
        witness,
        app.StateDataReporter(
            str(tmp_path / "x.csv"), 10, step=True, time=True, potentialEnergy=True, kineticEnergy=True,
            temperature=True, progress=True, totalSteps=400, remainingTime=True, speed=True,
        ),
        app.DCDReporter(str(tmp_path / "x.dcd"), 10),
        app.XTCReporter(str(tmp_path / "x.xtc"), 50),
        app.CheckpointReporter(str(tmp_path / "x.chk"), 100),
    ]  # fmt: skip
    if installed:
        sampler.install()
    for steps in (7, 13, 100, 1, 279):
        (sim if installed else sampler).step(steps)
    assert sim.currentStep == 400
    assert sampler.proposed == 4 * 20
    assert 0 < sampler.accepted < sampler.proposed
    rows = table(tmp_path / "x.csv")
    assert [int(row["Step"]) for row in rows] == witness.steps == list(range(10, 401, 10))
    assert [float(row["Time (ps)"]) for row in rows] == pytest.approx([s * STEP for s in witness.steps])
    assert [float(row["Kinetic Energy (kJ/mole)"]) for row in rows] == pytest.approx(witness.kinetic)
    kelvin = [2 * k / (FREEDOMS * kT(1.0)) for k in witness.kinetic]
    assert [float(row["Temperature (K)"]) for row in rows] == pytest.approx(kelvin, rel=1e-6)
    potential = reduced_energies(np.array(witness.positions)) * kT(T)
    assert [float(row["Potential Energy (kJ/mole)"]) for row in rows] == pytest.approx(potential, rel=1e-4)
    assert rows[-1]["Progress (%)"] == "100.0%"
    x, (count, first, interval, step) = dcd(tmp_path / "x.dcd")
    assert (len(x), count, first, interval) == (40, 40, 10, 10)
    assert step == pytest.approx(STEP, rel=1e-4)
    np.testing.assert_allclose(x, witness.positions, atol=1e-6)
    with XTCTrajectoryFile(str(tmp_path / "x.xtc")) as trajectory:
        y, times, steps, _ = trajectory.read()
    assert steps.tolist() == list(range(50, 401, 50))
    np.testing.assert_allclose(times, steps * STEP, rtol=1e-5)
    np.testing.assert_allclose(y, x[4::5], atol=1e-3)


def test_reported_temperatures_and_energies_have_their_law(tmp_path):
    """Also those of steps at which a move was made just before or after; little friction keeps what a move leaves."""
    sim = spring_simulation(friction=0.2)
    sampler = sampler_of(sim, every=20)
    file = str(tmp_path / "x.csv")
    sim.reporters.append(app.StateDataReporter(file, 21, potentialEnergy=True, temperature=True))
    sampler.step(21 * 1500)
    rows = table(file)
    assert len(rows) == 1500
    kinetic = np.array([float(row["Temperature (K)"]) for row in rows]) * FREEDOMS / 2 / T
    potential = np.array([float(row["Potential Energy (kJ/mole)"]) for row in rows]) / kT(T)
    assert pvalue(kinetic, energy_law) > 0.01
    assert pvalue(potential, energy_law) > 0.01
    assert abs(kinetic.mean() / 3 - 1) < 0.08


def test_a_restart_from_a_checkpoint_reporter_continues(tmp_path):
    """The dynamics bit for bit until the next move, which is due where it was, and the files where they ended."""

    def reported(sim, more):
        sim.reporters += [
            app.DCDReporter(str(tmp_path / "x.dcd"), 10, append=more),
            app.StateDataReporter(str(tmp_path / "x.csv"), 10, step=True, time=True, append=more),
            app.CheckpointReporter(str(tmp_path / "x.chk"), 50),
        ]

    whole = spring_simulation()
    sampler = sampler_of(whole, every=20)
    reported(whole, False)
    sampler.step(50)
    whole.reporters.clear()
    sampler.step(9)  # before the other is made: the random numbers of the Reference platform are those of the process
    expected = phase_of(whole.context)
    again = spring_simulation(seed=9)
    other = sampler_of(again, every=20, seed=2)
    again.loadCheckpoint(str(tmp_path / "x.chk"))
    reported(again, True)
    assert again.currentStep == 50
    other.step(9)
    np.testing.assert_array_equal(phase_of(again.context), expected)
    assert other.proposed == 0
    other.step(1)
    assert (other.proposed, again.currentStep) == (4, 60)
    other.step(940)
    assert other.proposed == 4 * (1000 // 20 - 50 // 20)
    rows = table(tmp_path / "x.csv")
    assert [int(row["Step"]) for row in rows] == list(range(10, 1001, 10))
    assert float(rows[-1]["Time (ps)"]) == pytest.approx(1000 * STEP)
    x, (count, first, interval, _) = dcd(tmp_path / "x.dcd")
    assert (len(x), count, first, interval) == (100, 100, 10, 10)


def test_restarted_again_and_again_the_law_stays(tmp_path):
    """Ten restarts, each from the file that the reporter of the one before left, with other moves each time."""
    file, frames = tmp_path / "x.chk", []
    for turn in range(10):
        sim = spring_simulation(seed=1 + turn)
        sampler = sampler_of(sim, every=20, seed=turn)
        if turn:
            sim.loadCheckpoint(str(file))
        witness = Witness(25)
        sim.reporters += [app.CheckpointReporter(str(file), 500), witness]
        sampler.step(1500)
        frames += witness.positions
    assert sim.currentStep == 15000
    assert sim.context.getState().getTime().value_in_unit(unit.picosecond) == pytest.approx(15000 * STEP)
    x = np.array(frames)
    assert len(x) == 600
    assert min(spring_pvalues(x)) > 0.01 / 6
    assert pvalue(reduced_energies(x), energy_law) > 0.01
