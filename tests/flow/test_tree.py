"""Laws of the Z-matrix: it follows the graph and the hand of the geometry, never the order or the names of atoms."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from timewarp.flow.tree import barrier, in_ring, neighbours, ranks, tree
from timewarp.state import Molecule

from .molecules import molecule_of, names_of

PEPTIDES = ["AA", "HM", "PG", "RD", "LV", "ACE-TRP-NME"]


def scrambled(molecule: Molecule, seed: int) -> tuple[Molecule, torch.Tensor]:
    """The molecule with its atoms, its list of bonds and the ends of each bond in another order."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(molecule.atoms, generator=rng)
    other = molecule.permuted(order)
    bonds = other.bonds[torch.randperm(len(other.bonds), generator=rng)]
    flip = torch.rand(len(bonds), generator=rng) < 0.5
    return replace(other, bonds=torch.where(flip[:, None], bonds.flip(1), bonds)), order


def turning(sequence, free=True):
    """Central bonds of the free (or stiff first) dihedrals, as pairs of names."""
    molecule, name = molecule_of(sequence), names_of(sequence)
    found, first = tree(molecule), set()
    rows = dict(zip(found.order.tolist(), found.rows.tolist(), strict=True))
    for a, f in zip(found.order.tolist(), found.free.tolist(), strict=True):
        parent, up, beyond = rows[a]
        if beyond >= 0 and rows[beyond][:2] != [parent, up] and f == free:
            first.add(frozenset((name[parent], name[up])))
    return first


def pairs(text):
    return {frozenset(pair.split("-")) for pair in text.split()}


@pytest.mark.parametrize("sequence", PEPTIDES)
def test_rows_refer_to_bonded_atoms_that_are_placed_before(sequence):
    molecule = molecule_of(sequence)
    near, found = neighbours(molecule), tree(molecule)
    placed: list[int] = []
    for atom, (parent, up, beyond) in zip(found.order.tolist(), found.rows.tolist(), strict=True):
        for other, bonded_to in ((parent, atom), (up, parent)):
            assert other == -1 or (other in placed and other in near[bonded_to])
        assert beyond == -1 or (beyond in placed and (beyond in near[up] or beyond in near[parent]))
        placed.append(atom)
    assert sorted(placed) == list(range(molecule.atoms))
    assert (found.rows >= 0).sum(1).tolist()[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("sequence", PEPTIDES)
def test_levels_cover_the_places_and_lean_on_earlier_ones_alone(sequence):
    found = tree(molecule_of(sequence))
    place = found.order.argsort()
    stop = 3
    for start, end in found.levels:
        assert start == stop
        assert place[found.rows[start:end]].max() < start
        stop = end
    assert stop == len(found.order)
    assert len(found.levels) < len(found.order) / 2  # many atoms are set at once


@pytest.mark.parametrize("sequence", PEPTIDES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_the_file_does_not_matter(sequence, seed):
    molecule = molecule_of(sequence)
    other, order = scrambled(molecule, seed)
    a, b = tree(molecule), tree(other)
    assert order[b.order].tolist() == a.order.tolist()
    assert torch.where(b.rows >= 0, order[b.rows], -1).tolist() == a.rows.tolist()
    assert b.free.tolist() == a.free.tolist()
    assert b.levels == a.levels


def test_equivalent_hydrogens_come_in_the_order_of_their_handedness():
    """The two hydrogens of a CH2 group change places when they change labels: the one seen ahead is placed first."""
    molecule = molecule_of("HM")
    name = names_of("HM")
    a, b = name.index("HG21"), name.index("HG31")
    swap = torch.arange(molecule.atoms)
    swap[a], swap[b] = b, a
    before = tree(molecule).order.tolist()
    mirrored = replace(molecule, reference=molecule.reference[swap])
    after = tree(mirrored).order.tolist()
    assert (before.index(a) < before.index(b)) != (after.index(a) < after.index(b))


def test_a_saved_order_makes_the_same_tree_again():
    molecule = molecule_of("LV")
    found = tree(molecule)
    again = tree(molecule, found.order.argsort().tolist())
    assert again.order.tolist() == found.order.tolist()
    backward = tree(molecule, (-found.order.argsort()).tolist())
    assert backward.order.tolist() != found.order.tolist()
    listed = tree(molecule, [0] * molecule.atoms)
    near = neighbours(molecule)
    places = listed.order.argsort().tolist()
    rank = ranks(molecule)
    for parent in range(molecule.atoms):
        below = [a for a in near[parent] if listed.rows[places[a], 0] == parent]
        heaviest = max((rank[a] for a in below), default=0)
        for one, two in pairwise(below):
            if rank[one] == rank[two] < heaviest:
                assert places[one] < places[two]


def test_backbone_and_methyls_turn_and_amides_do_not():
    assert turning("ACE-ALA-NME") == pairs("CH30-C0 N1-CA1 CA1-C1 CA1-CB1 N2-C2")
    assert turning("ACE-ALA-NME", free=False) == pairs("C0-N1 C1-N2")


def test_side_chains():
    free, stiff = turning("RD"), turning("RD", free=False)
    assert free >= pairs("N0-CA0 CA0-CB0 CB0-CG0 CG0-CD0 CD0-NE0")
    assert stiff >= pairs("NE0-CZ0 CZ0-NH10 CZ0-NH20")  # guanidinium
    assert free >= pairs("CB1-CG1 CA1-C1")  # carboxylates turn as wholes
    assert turning("SY") >= pairs("CB0-OG0 CB1-CG1 CZ1-OH1")
    assert turning("ACE-TRP-NME") >= pairs("CB1-CG1 CA1-CB1")
    assert turning("NQ") >= pairs("CB0-CG0 CG1-CD1")
    assert turning("NQ", free=False) >= pairs("CG0-ND20 CD1-NE21")


@pytest.mark.parametrize(
    ("sequence", "ring"), [("SY", "CG1 CD11 CD21 CE11 CE21 CZ1"), ("HM", "CG0 ND10 CD20 CE10 NE20")]
)
def test_planar_rings_are_stiff(sequence, ring):
    atoms = set(ring.split())
    assert not [pair for pair in turning(sequence) if pair <= atoms]
    assert [pair for pair in turning(sequence, free=False) if pair <= atoms]


def test_a_disulfide_does_not_turn_though_its_ring_is_wide():
    molecule, name = molecule_of("CYX-CYX"), names_of("CYX-CYX")
    sulfurs = name.index("SG0"), name.index("SG1")
    assert in_ring(neighbours(molecule), *sulfurs)
    assert 25 < barrier(molecule, *sulfurs) < 45
    assert frozenset(("SG0", "SG1")) in turning("CYX-CYX", free=False)
    assert frozenset(("C0", "N1")) in turning("CYX-CYX", free=False)


def test_a_five_ring_has_at_most_one_pucker():
    for sequence, ring in (("PG", "N0 CA0 CB0 CG0 CD0"), ("GP", "N1 CA1 CB1 CG1 CD1")):
        assert len([pair for pair in turning(sequence) if pair <= set(ring.split())]) <= 1


def test_molecules_without_a_tree_are_refused():
    molecule = molecule_of("AA")
    apart = replace(molecule, bonds=molecule.bonds[1:])
    with pytest.raises(ValueError, match="one connected molecule"):
        tree(apart)
    star = replace(
        molecule,
        elements=torch.tensor([6, 1, 1, 1, 1]),
        masses=torch.ones(5).double(),
        bonds=torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]]),
        reference=torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double(),
    )
    with pytest.raises(ValueError, match="chain of three bonds"):
        tree(star)
