"""Positions -> a PDB file that other programs read."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Float
from openmm import app, unit


def write_pdb(topology: app.Topology, positions: Float[np.ndarray, "atoms 3"], path: str | os.PathLike) -> None:
    """Write one structure (positions in nm), with the residue numbers of the topology."""
    with open(path, "w") as file:
        # no header: it carries the date, and the same molecule should give the same bytes
        app.PDBFile.writeModel(topology, np.asarray(positions) * unit.nanometer, file, keepIds=True)
        app.PDBFile.writeFooter(topology, file)
