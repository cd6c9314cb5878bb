"""Angles have the IUPAC sign, every peptide gives the names that it has, and mirror images are told apart."""

import numpy as np
import pytest

from timewarp.analysis.dihedrals import chiral_centres, dihedral_angles, dihedral_table, handedness, is_cis
from timewarp.analysis.ensemble import Ensemble


def names(topology):
    return [d.name for d in dihedral_table(topology)]


def test_angles_equal_those_of_mdtraj(tetrapeptide, rng):
    import mdtraj

    topology, positions = tetrapeptide
    shaken = (positions + 0.03 * rng.normal(size=(20, *positions.shape))).astype(np.float32)
    trajectory = mdtraj.Trajectory(shaken, topology)
    table = dihedral_table(topology)
    for kind in ("phi", "psi", "omega", "chi1"):
        mine = [d for d in table if d.kind == kind]
        index, angles = getattr(mdtraj, f"compute_{kind}")(trajectory, periodic=False)
        assert [d.atoms for d in mine] == [tuple(row) for row in index]
        gap = np.angle(np.exp(1j * (dihedral_angles(shaken, mine) - angles)))
        assert np.abs(gap).max() < 1e-4


def test_a_quarter_turn_is_positive_when_it_is_clockwise():
    # seen along b -> c, going from a to d clockwise is positive (IUPAC)
    from timewarp.analysis.dihedrals import Dihedral

    positions = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]])
    assert dihedral_angles(positions, [Dihedral("phi", 1, (0, 1, 2, 3))]) == pytest.approx([np.pi / 2])


def test_names_of_a_zwitterion_and_of_caps(dipeptide, capped):
    assert names(dipeptide[0]) == ["psi 1", "omega 1", "phi 2"]
    assert names(capped[0]) == ["omega 1", "phi 2", "psi 2", "omega 2"]


def test_a_mirror_image_has_the_other_hand_and_glycine_none(tetrapeptide):
    topology, positions = tetrapeptide
    centres = chiral_centres(topology)
    assert [number for number, _ in centres] == [1, 2, 3]  # the fourth is glycine
    assert (handedness(positions, centres) > 0).all()
    assert (handedness(positions * [1, 1, -1], centres) < 0).all()
    frames = np.stack([positions, positions * [1, 1, -1], positions])[None]
    assert Ensemble.of(topology, frames).flipped() == 1


def test_cis_is_near_zero():
    assert is_cis(np.radians([0.0, 80, -80, 100, 180, -175])).tolist() == [True, True, True, False, False, False]


def test_turning_and_shifting_the_molecule_changes_no_angle(tetrapeptide, rng):
    topology, positions = tetrapeptide
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    table = dihedral_table(topology)
    moved = dihedral_angles(positions @ rotation.T + 3.0, table)
    np.testing.assert_allclose(moved, dihedral_angles(positions, table), atol=1e-6)
