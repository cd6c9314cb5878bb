"""A script as everybody has one; the flow's moves come in with the import and one line."""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

from timewarp.md import TimewarpSampler

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
pdb = app.PDBFile(str(Path(__file__).parent.parent / "peptides" / "AA.pdb"))
forcefield = app.ForceField("amber14-all.xml", "implicit/obc1.xml")
system = forcefield.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, hydrogenMass=3 * unit.amu)
integrator = openmm.LangevinMiddleIntegrator(310 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtoseconds)
simulation = app.Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.context.setVelocitiesToTemperature(310 * unit.kelvin)
simulation.reporters += [
    app.StateDataReporter("plain.csv", steps // 10, step=True, potentialEnergy=True, temperature=True),
    app.DCDReporter("plain.dcd", steps // 10),
    app.CheckpointReporter("plain.chk", steps // 2),
]
sampler = TimewarpSampler(simulation, every=min(1000, steps // 2)).install()
simulation.step(steps)
print(f"step {simulation.currentStep}: {sampler.accepted} of {sampler.proposed} proposals accepted")
