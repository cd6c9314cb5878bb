"""Analysis of sampled ensembles: what the chains say, how far to trust them, and a report for a person.

Nouns: an `Ensemble` holds the named dihedral angles of all chains; a `verdict` says whether averages over them can be
trusted; a state is a string of Ramachandran regions; a slow coordinate comes from TICA. Nothing here knows how the
samples were made. matplotlib and mdtraj are imported inside the functions that need them.
"""

from timewarp.analysis.basins import Population, populations, states
from timewarp.analysis.convergence import verdict
from timewarp.analysis.dihedrals import Dihedral, circular, dihedral_angles, dihedral_table, handedness, is_cis
from timewarp.analysis.distances import energy_w2, euclidean_w2, kolmogorov_smirnov, overlap, thinned, torus_w2
from timewarp.analysis.ensemble import Ensemble
from timewarp.analysis.features import tica_features
from timewarp.analysis.log import ChainLog, read_log
from timewarp.analysis.report import write_report
from timewarp.analysis.slow import slowest
from timewarp.analysis.tica import Tica, fit_tica

__all__ = [
    "ChainLog",
    "Dihedral",
    "Ensemble",
    "Population",
    "Tica",
    "circular",
    "dihedral_angles",
    "dihedral_table",
    "energy_w2",
    "euclidean_w2",
    "fit_tica",
    "handedness",
    "is_cis",
    "kolmogorov_smirnov",
    "overlap",
    "populations",
    "read_log",
    "slowest",
    "states",
    "thinned",
    "tica_features",
    "torus_w2",
    "verdict",
    "write_report",
]
