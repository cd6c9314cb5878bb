"""The part of a System that the tables of a `Molecule` can hold."""

from __future__ import annotations

import copy

import numpy as np
import openmm
from openmm import app

from timewarp.md.export import UnsupportedForce, export
from timewarp.state import Molecule


def export_known(
    topology: app.Topology, system: openmm.System, positions: np.ndarray
) -> tuple[Molecule, tuple[str, ...]]:
    """The molecule with the tables of those forces that can be exported, and why the others cannot.

    Raises:
        UnsupportedForce: if the System has constraints.
    """
    part = openmm.System()
    for atom in range(system.getNumParticles()):
        part.addParticle(system.getParticleMass(atom))
    for constraint in range(system.getNumConstraints()):
        part.addConstraint(*system.getConstraintParameters(constraint))
    molecule, reasons = export(topology, part, positions), []
    # the charges first, which other forces are read beside
    for force in sorted(system.getForces(), key=lambda force: type(force) is not openmm.NonbondedForce):
        index = part.addForce(copy.copy(force))
        try:
            molecule = export(topology, part, positions)
        except UnsupportedForce as error:
            part.removeForce(index)
            reasons.append(str(error))
    return molecule, tuple(reasons)
