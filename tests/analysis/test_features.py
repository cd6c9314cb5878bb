"""TICA features are those of the published code: its recipe is followed here with mdtraj, step by step."""

import mdtraj
import numpy as np
import pytest

from timewarp.analysis.features import tica_features
from timewarp.resources import peptide_path


@pytest.mark.parametrize("name", ["AA", "ACE-ALA-NME"])
def test_features_are_those_of_the_published_recipe(rng, name):
    whole = mdtraj.load(str(peptide_path(name)))
    xyz = whole.xyz + 0.01 * rng.normal(size=(5, whole.n_atoms, 3)).astype(np.float32)
    cut = mdtraj.Trajectory(xyz, whole.topology)
    cut = cut.atom_slice(whole.topology.select("symbol == C or symbol == N or symbol == S"))
    angles = [f(cut)[1] for f in (mdtraj.compute_phi, mdtraj.compute_psi, mdtraj.compute_omega)]
    pairs = np.stack(np.triu_indices(cut.n_atoms, k=1), 1)
    distances = mdtraj.compute_distances(cut, pairs)
    expected = np.concatenate([distances, *(g(a) for a in angles for g in (np.sin, np.cos))], 1)
    found = tica_features(whole.topology, xyz)
    assert found.shape == expected.shape
    # the order of the angles is our own
    np.testing.assert_allclose(found[:, : len(pairs)], distances, atol=1e-5)
    np.testing.assert_allclose(np.sort(found, 1), np.sort(expected, 1), atol=1e-4)


def test_long_peptides_are_seen_by_their_alpha_carbons(rng):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(5):
        residue = topology.add_residue("GLY", chain)
        for name, element in (("N", "N"), ("CA", "C"), ("C", "C")):
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(element), residue)
    x = rng.normal(size=(3, 15, 3))
    found = tica_features(topology, x)
    assert found.shape == (3, 10)
    np.testing.assert_allclose(found[:, 0], np.linalg.norm(x[:, 1] - x[:, 4], axis=-1), rtol=1e-5)
