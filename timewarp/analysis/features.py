"""What TICA sees of a configuration, as in the published TICA-W2 figures.

Source: Tan et al. 2025 (arXiv 2508.18175), code src/data/preprocessing/tica.py, after Klein and Noe 2024: up to four
residues all distances between C, N and S atoms (not O) with sine and cosine of phi, psi and omega; from five residues
on the distances between alpha carbons alone. Two coordinates at a lag of 100 frames of 1 ps, scaled by their
eigenvalues (kinetic map).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from timewarp.analysis.dihedrals import circular, dihedral_angles, dihedral_table

if TYPE_CHECKING:
    from mdtraj import Topology

LAG = 100.0  # ps
LONGEST = 4  # residues of a peptide that is seen in full
HEAVY = ("C", "N", "S")


def tica_features(
    topology: Topology, positions: Float[np.ndarray, "*batch atoms 3"]
) -> Float[np.ndarray, "*batch features"]:
    """The features of configurations in nm, float32.

    Raises:
        ValueError: if a long peptide has fewer than two alpha carbons, so that there is no distance.
    """
    full = topology.n_residues <= LONGEST
    atoms = [a.index for a in topology.atoms if (a.element.symbol in HEAVY if full else a.name == "CA")]
    if len(atoms) < 2:
        raise ValueError(f"expected at least two atoms with a distance, got {len(atoms)}; is this a peptide?")
    first, second = (np.array(atoms)[side] for side in np.triu_indices(len(atoms), k=1))
    parts = [np.linalg.norm(positions[..., first, :] - positions[..., second, :], axis=-1)]
    if full:
        names = [atom.name for atom in topology.atoms]
        table = [d for d in dihedral_table(topology) if d.kind in ("phi", "psi") or _between_residues(d, names)]
        angles = circular(dihedral_angles(positions, table))
        parts.append(angles.reshape(*angles.shape[:-2], -1))
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _between_residues(dihedral, names) -> bool:
    """Whether it is an omega from one alpha carbon to the next; those of caps are not seen by the published code."""
    return dihedral.kind == "omega" and names[dihedral.atoms[0]] == names[dihedral.atoms[3]] == "CA"
