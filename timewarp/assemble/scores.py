"""The published distances between two sets of configurations of one peptide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from timewarp.analysis.distances import energy_w2, euclidean_w2, torus_w2
from timewarp.analysis.ensemble import Ensemble
from timewarp.analysis.features import tica_features
from timewarp.analysis.tica import Tica

if TYPE_CHECKING:
    from mdtraj import Topology

Sample = tuple[Float[np.ndarray, "_frames atoms 3"], Float[np.ndarray, " _frames"]]  # nm, U/kT


def distances(topology: Topology, tica: Tica, one: Sample, two: Sample) -> dict[str, float]:
    """`e_w2` (kT), `t_w2` (rad; 0 for a peptide without phi and psi) and `tica_w2` (of unit variance times eigenvalue).

    See `timewarp.analysis.distances` for what is computed, and where that is known from.
    """
    angles = [Ensemble.of(topology, positions[None]).backbone()[0] for positions, _ in (one, two)]
    slow = [np.asarray(tica(tica_features(topology, positions))) for positions, _ in (one, two)]
    return {
        "e_w2": energy_w2(one[1], two[1]),
        "t_w2": torus_w2(*angles) if angles[0].shape[1] else 0.0,
        "tica_w2": euclidean_w2(*slow),
    }
