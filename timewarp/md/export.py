"""From an `openmm.System` to a `Molecule`: the force field as arrays, for energies that know no OpenMM."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
import torch
from openmm import app

from timewarp.forcefield import ForceField
from timewarp.md import nonbonded, solvent, valence
from timewarp.md.unsupported import UnsupportedForce, unsupported
from timewarp.state import Molecule

__all__ = ["UnsupportedForce", "export"]

_VALENCE: dict[type, Any] = {
    openmm.HarmonicBondForce: valence.bonds,
    openmm.HarmonicAngleForce: valence.angles,
    openmm.PeriodicTorsionForce: valence.torsions,
    openmm.RBTorsionForce: valence.ryckaert_bellemans,
    openmm.CustomTorsionForce: valence.impropers,
    openmm.CMAPTorsionForce: valence.maps,
}
_SOLVENT: dict[type, Any] = {openmm.GBSAOBCForce: solvent.obc, openmm.CustomGBForce: solvent.custom_born}
# what stands besides the charges, and is read after them
_BESIDES: dict[type, Any] = {
    openmm.CustomNonbondedForce: nonbonded.lennard_jones,
    openmm.CustomBondForce: nonbonded.pairs_of_their_own,
}
_NO_ENERGY = (openmm.CMMotionRemover, openmm.AndersenThermostat)


def export(topology: app.Topology, system: openmm.System, positions: np.ndarray) -> Molecule:
    """The molecule with its tables (float64).

    Args:
        topology: for the elements and the covalent bonds.
        system: whose forces are read, each by the reader above.
        positions: prepared geometry, nm, [atoms, 3].

    Raises:
        UnsupportedForce: naming the force, if it is of another kind or has a setting that is not known.
    """
    if system.getNumConstraints():
        raise UnsupportedForce("the batched potential expects a System without constraints")
    atoms = system.getNumParticles()
    if any(system.isVirtualSite(atom) for atom in range(atoms)):
        raise UnsupportedForce("the batched potential expects a System without virtual sites")
    bonds = [(a.index, b.index) for a, b in topology.bonds()]
    return Molecule(
        elements=torch.tensor([a.element.atomic_number if a.element else 0 for a in topology.atoms()]),
        masses=torch.tensor([system.getParticleMass(i)._value for i in range(atoms)]).double(),
        bonds=torch.tensor(bonds, dtype=torch.long).reshape(-1, 2),
        reference=torch.as_tensor(np.asarray(positions), dtype=torch.float64),
        forcefield=ForceField(**_tables(system.getForces(), atoms)),
    )


def _tables(forces, atoms: int) -> dict:
    tables = _empty()
    for force in forces:
        kind = type(force)
        if kind in _VALENCE:
            _check(force)
            found = _VALENCE[kind](force)
            if "map_kind" in found and "map_kind" in tables:
                found["map_kind"] += len(tables["map_energy"])
                if found["map_energy"].shape[1:] != tables["map_energy"].shape[1:]:
                    raise unsupported(force, "maps of another size than one before")
            tables |= {name: torch.cat([tables[name], new]) if name in tables else new for name, new in found.items()}
        elif kind in _SOLVENT:
            if tables["born"] is not None:
                raise unsupported(force, "another implicit-solvent force before it")
            tables["born"] = _SOLVENT[kind](force)
        elif kind is openmm.NonbondedForce:
            if "charge" in tables:
                raise unsupported(force, "another NonbondedForce before it")
            tables |= nonbonded.nonbonded(force)
        elif kind not in _NO_ENERGY and kind not in _BESIDES:
            raise unsupported(force)
    for force in forces:
        if type(force) in _BESIDES:
            _check(force)
            if "charge" not in tables:
                raise unsupported(force, "no NonbondedForce beside it")
            tables |= _BESIDES[type(force)](force, tables)
    return {name: torch.zeros(atoms, dtype=torch.float64) for name in ("charge", "sigma", "epsilon")} | tables


def _check(force) -> None:
    if force.usesPeriodicBoundaryConditions():
        raise unsupported(force, "periodic boundary conditions")


def _empty() -> dict:
    """The tables that every force field has, without rows."""
    tables: dict[str, Any] = {"born": None}
    for name, columns in (("bond", 2), ("angle", 3), ("torsion", 4), ("exception", 2)):
        tables[f"{name}_index"] = torch.zeros(0, columns, dtype=torch.long)
    for name in (
        *("bond_length", "bond_stiffness", "angle_value", "angle_stiffness"),
        *("torsion_periodicity", "torsion_phase", "torsion_barrier"),
        *("exception_charge", "exception_sigma", "exception_epsilon"),
    ):
        tables[name] = torch.zeros(0, dtype=torch.float64)
    return tables
