"""The force field: a topology with all of its atoms -> an OpenMM System."""

from __future__ import annotations

import contextlib
from functools import lru_cache

import openmm
from openmm import app, unit

from timewarp.md.faults import InputError

FORCEFIELD = ("amber14-all.xml", "implicit/obc1.xml")
CUTOFF = 2.0  # nm
# the rest of `amber14-all.xml`, nucleic acids and lipids, says nothing of peptides, and takes ten times as long to read
PROTEIN = ("amber14/protein.ff14SB.xml", *FORCEFIELD[1:])


@lru_cache(maxsize=8)
def _load(forcefield: tuple[str, ...]) -> app.ForceField:
    try:
        return app.ForceField(*forcefield)
    except Exception as error:  # OpenMM raises whatever its XML reader does
        raise InputError(f"expected force-field files that OpenMM can read, found {forcefield}: {error}") from error


def create_system(topology: app.Topology, forcefield: tuple[str, ...] = FORCEFIELD) -> openmm.System:
    """The potential of the published systems: non-periodic cutoff at 2 nm, no constraints.

    Raises:
        InputError: if the force field has no parameters for a residue.
    """
    if tuple(forcefield) == FORCEFIELD:
        # whatever is no peptide: the whole force field knows it, or says what not
        with contextlib.suppress(ValueError):
            return _system(PROTEIN, topology)
    try:
        return _system(tuple(forcefield), topology)
    except ValueError as error:
        raise InputError(
            f"expected residues that {', '.join(forcefield)} has parameters for, found: {error} "
            "Use another protonation state or cap, or another force field."
        ) from error


def _system(forcefield: tuple[str, ...], topology: app.Topology) -> openmm.System:
    return _load(forcefield).createSystem(
        topology,
        nonbondedMethod=app.CutoffNonPeriodic,
        nonbondedCutoff=CUTOFF * unit.nanometer,
        constraints=None,
        rigidWater=False,
        removeCMMotion=False,
    )
