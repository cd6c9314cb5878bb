"""Replica exchange in OpenMM, with flow moves at every temperature of the ladder."""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

from timewarp.md import TimewarpReplicaExchangeSampler

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
pdb = app.PDBFile(str(Path(__file__).parent.parent / "peptides" / "AA.pdb"))
forcefield = app.ForceField("amber14-all.xml", "implicit/obc1.xml")
system = forcefield.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, hydrogenMass=3 * unit.amu)
integrator = openmm.LangevinMiddleIntegrator(310 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtoseconds)
simulation = app.Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.context.setVelocitiesToTemperature(310 * unit.kelvin)
states = [{"temperature": t * unit.kelvin} for t in (310, 370)]
exchange = TimewarpReplicaExchangeSampler(states, simulation, stepsPerIteration=min(500, iterations * 10))
with open("coldest.dcd", "wb") as file:
    dcd = app.DCDFile(file, pdb.topology, 0.002)
    exchange.reporters.append(
        lambda e: dcd.writeModel(e.replicaConformation[e.replicaStateIndex.index(0)].getPositions())
    )
    exchange.simulate(iterations)
for state, proposed, accepted in zip(states, exchange.proposed, exchange.accepted, strict=True):
    print(f"{state['temperature']}: {accepted} of {proposed} proposals accepted")
