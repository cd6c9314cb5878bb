"""Handedness of stereocentres and the geometry of peptide bonds, read from positions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from openmm import app

# centre: three neighbours whose triple product is positive in L amino acids and natural side chains
_CENTRES = {"CA": ("N", "C", "CB")}
_SIDE = {"ILE": ("CB", ("CA", "CG1", "CG2")), "THR": ("CB", ("CA", "OG1", "CG2"))}


def chirality(
    topology: app.Topology, positions: Float[np.ndarray, "atoms 3"]
) -> Iterator[tuple[app.topology.Residue, str, float]]:
    """For each stereocentre its residue, its name and +1 (natural) or -1 (inverted)."""
    for residue in topology.residues():
        at = {atom.name: positions[atom.index] for atom in residue.atoms()}
        centres = dict(_CENTRES) | dict([_SIDE[residue.name]] if residue.name in _SIDE else [])
        for centre, names in centres.items():
            if {centre, *names} <= at.keys():
                a, b, c = (at[name] - at[centre] for name in names)
                yield residue, centre, float(np.sign(np.dot(a, np.cross(b, c))))


def trans(topology: app.Topology, positions: Float[np.ndarray, "atoms 3"]) -> Iterator[tuple[str, bool]]:
    """For each peptide bond its residues (`ALA1-ALA2`) and whether CA-C-N-CA is trans (|omega| > 90 degrees)."""
    residues = list(topology.residues())
    for one, two in pairwise(residues):
        first, second = ({a.name: positions[a.index] for a in r.atoms()} for r in (one, two))
        start, end = first.get("CA", first.get("CH3")), second.get("CA", second.get("C"))
        if two.name == "NH2" or start is None or end is None:
            continue
        u, v, w = first["C"] - start, second["N"] - first["C"], end - second["N"]
        yield f"{one.name}{one.id}-{two.name}{two.id}", bool(np.dot(np.cross(u, v), np.cross(v, w)) < 0)
