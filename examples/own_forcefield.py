"""Any force field of OpenMM will do; a force that the batched energy does not know is left to OpenMM, with a notice."""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

from timewarp.md import TimewarpSampler

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
pdb = app.PDBFile(str(Path(__file__).parent.parent / "peptides" / "AA.pdb"))
system = app.ForceField("amber99sbildn.xml", "amber99_obc.xml").createSystem(pdb.topology)
ends = openmm.CustomCompoundBondForce(2, "5*(distance(p1, p2) - 0.5)^2")  # kJ/mol, holds the ends loosely together
ends.addBond([atom.index for atom in pdb.topology.atoms() if atom.name in ("N", "C")][::3])
system.addForce(ends)
integrator = openmm.LangevinMiddleIntegrator(330 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond)
simulation = app.Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
sampler = TimewarpSampler(simulation, every=min(1000, steps // 2))
print(*sampler.notices, sep="\n")
sampler.step(steps)
print(f"{sampler.accepted} of {sampler.proposed} proposals accepted")
