"""Energy minimisation, reproducible on any machine with the same OpenMM."""

from __future__ import annotations

import numpy as np
import openmm
from jaxtyping import Bool, Float
from openmm import unit


def relax(
    system: openmm.System,
    positions: Float[np.ndarray, "atoms 3"],
    held: Bool[np.ndarray, " atoms"] | None = None,
    stiffness: float = 1000.0,
    iterations: int = 0,
    tolerance: float = 10.0,
) -> tuple[Float[np.ndarray, "atoms 3"], float, float]:
    """Minimise the energy, with harmonic restraints k/2 |x - x0|^2 on the atoms in `held`.

    Args:
        system: left as it was.
        positions: nm.
        held: the atoms that are restrained to where they are; none if not given.
        stiffness: k, kJ/mol/nm^2.
        iterations: at most so many; 0 for until convergence.
        tolerance: root-mean-square force at which to stop, kJ/mol/nm.

    Returns:
        positions in nm, and the potential energy (without the restraints) before and after, kJ/mol.
    """
    copy = openmm.XmlSerializer.clone(system)
    for force in copy.getForces():
        force.setForceGroup(0)
    if held is not None and held.any():
        restraint = openmm.CustomExternalForce("held_by/2*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
        restraint.addGlobalParameter("held_by", stiffness)  # a name that no other force has
        for name in ("x0", "y0", "z0"):
            restraint.addPerParticleParameter(name)
        for atom in np.flatnonzero(held):
            restraint.addParticle(int(atom), positions[atom].tolist())
        restraint.setForceGroup(1)
        copy.addForce(restraint)
    platform = openmm.Platform.getPlatformByName("CPU")
    # one thread and a fixed order of summation: the same file gives the same atoms everywhere
    properties = {"Threads": "1", "DeterministicForces": "true"}
    context = openmm.Context(copy, openmm.VerletIntegrator(0.001), platform, properties)
    context.setPositions(positions)

    def energy() -> float:
        state = context.getState(getEnergy=True, groups={0})
        return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)

    before = energy()
    openmm.LocalEnergyMinimizer.minimize(context, tolerance, iterations)
    state = context.getState(getPositions=True)
    after = np.asarray(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64)
    return after, before, energy()
