"""What the moves leave is an ordinary trajectory: mdtraj and MDAnalysis read it."""

import sys
from pathlib import Path

import MDAnalysis
import mdtraj
import numpy as np
import openmm
from MDAnalysis.analysis.dihedrals import Ramachandran
from openmm import app, unit

from timewarp.md import TimewarpSampler, prepare, write_pdb

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
peptide = prepare(Path(__file__).parent.parent / "peptides" / "ACE-ALA-NME.pdb")
integrator = openmm.LangevinMiddleIntegrator(310 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond)
simulation = app.Simulation(peptide.topology, peptide.system, integrator)
simulation.context.setPositions(peptide.positions)
simulation.reporters.append(app.XTCReporter("ala.xtc", steps // 20))
TimewarpSampler(simulation, every=min(1000, steps // 20)).step(steps)
del simulation  # closes the file
write_pdb(peptide.topology, peptide.positions, "ala.pdb")

phi = np.degrees(mdtraj.compute_phi(mdtraj.load("ala.xtc", top="ala.pdb"))[1][:, 0])
universe = MDAnalysis.Universe("ala.pdb", "ala.xtc")
same = Ramachandran(universe.select_atoms("resname ALA")).run().results.angles[:, 0, 0]
print(f"{len(phi)} frames, {(np.diff(np.sign(phi)) != 0).sum()} crossings of phi = 0")
print(f"mdtraj and MDAnalysis differ by {np.abs((phi - same + 180) % 360 - 180).max():.3f} degrees at most")
