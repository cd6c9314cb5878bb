"""Real peptides, built and minimised with OpenMM once a session, and synthetic runs of them."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(scope="session")
def peptide(tmp_path_factory):
    """A function from a sequence to its mdtraj topology, positions in nm, and PDB file."""
    import mdtraj

    from timewarp.md.system import prepare_sequence, write_pdb

    made = {}

    def get(sequence):
        if sequence not in made:
            path = tmp_path_factory.mktemp("peptide") / f"{sequence}.pdb"
            prepared = prepare_sequence(sequence)
            write_pdb(prepared.topology, prepared.positions, path)
            topology = mdtraj.load_pdb(str(path), standard_names=False).topology
            made[sequence] = topology, np.asarray(prepared.positions, dtype=np.float64), path
        return made[sequence]

    return get


@pytest.fixture(scope="session")
def dipeptide(peptide):
    return peptide("AA")[:2]


@pytest.fixture(scope="session")
def tetrapeptide(peptide):
    return peptide("SVPG")[:2]


@pytest.fixture(scope="session")
def capped(peptide):
    return peptide("ACE-GLY-NME")[:2]
