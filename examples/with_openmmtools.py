"""A flow move among the moves of openmmtools (pip install 'timewarp-md[openmmtools]')."""

import sys
from pathlib import Path

from openmm import app, unit
from openmmtools.mcmc import LangevinDynamicsMove, MCMCSampler, SequenceMove
from openmmtools.states import SamplerState, ThermodynamicState

from timewarp.md import TimewarpMove

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
pdb = app.PDBFile(str(Path(__file__).parent.parent / "peptides" / "AA.pdb"))
forcefield = app.ForceField("amber14-all.xml", "implicit/obc1.xml")
system = forcefield.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, hydrogenMass=3 * unit.amu)

dynamics = LangevinDynamicsMove(timestep=2 * unit.femtoseconds, n_steps=min(500, 10 * iterations))
flow = TimewarpMove(pdb.topology)
sampler = MCMCSampler(
    ThermodynamicState(system, temperature=310 * unit.kelvin),
    SamplerState(pdb.positions),
    SequenceMove([dynamics, flow]),
)
sampler.minimize()
sampler.run(iterations)
print(f"{flow.n_accepted} of {flow.n_proposed} proposals accepted, {sampler.sampler_state.potential_energy}")
