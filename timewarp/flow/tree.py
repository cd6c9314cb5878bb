"""The order in which a molecule's atoms are placed: a Z-matrix along the covalent graph.

Each placed atom has a bond (to its parent), an angle (parent, grandparent) and a dihedral. Of the children of one
parent only the first has the dihedral about the bond parent-grandparent; its siblings are placed relative to it.
A dihedral is free where the force field lets the bond turn, or a saturated ring pucker; all else is stiff. A ring of
five has two dihedrals that tell its pucker. Nothing depends on the atom order of the file: ties are broken by the
graph, then by the handedness of the prepared geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from timewarp.flow.geometry import dihedral
from timewarp.state import Molecule

STIFF_BARRIER = 45.0  # kJ/mol: the intrinsic barrier from which a bond does not turn
PUCKER_BARRIER = 25.0  # kJ/mol: the same for a bond in a ring, planar above
SATURATED = 3  # atoms of a ring of five with four neighbours, from which it puckers


@dataclass(frozen=True)
class Ring:
    """A saturated ring of five, which one bond closes that no row of the tree has.

    Attributes:
        places: those whose dihedrals turn the second and the third bond along `atoms`, the earlier place first.
        atoms: from one end of the closing bond round to the other.
    """

    places: tuple[int, int]
    atoms: tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Tree:
    """Z-matrix of a molecule.

    Attributes:
        order: atoms in the order of placement.
        rows: for each place in `order`, the atoms (parent, grandparent, great-grandparent); -1 for none.
        free: for each place, whether its dihedral turns freely, or stands for the phase of a ring.
        levels: ranges of places that can be set at once, level after level (the first three places excluded).
        rings: saturated rings of five; the first place of each is free, the second is not.
    """

    order: Int[Tensor, " atoms"]
    rows: Int[Tensor, "atoms 3"]
    free: Bool[Tensor, " atoms"]
    levels: tuple[tuple[int, int], ...]
    rings: tuple[Ring, ...] = ()


def ranks(molecule: Molecule) -> np.ndarray:
    """Rank of each atom by element, then by its neighbours' ranks, sphere after sphere; equal if equivalent."""
    near = neighbours(molecule)
    rank = _dense(molecule.elements.tolist())
    for _ in range(molecule.atoms):
        keys = [(rank[i], sorted((rank[j] for j in near[i]), reverse=True)) for i in range(molecule.atoms)]
        finer = _dense(keys)
        if finer == rank:
            break
        rank = finer
    return np.array(rank)


def neighbours(molecule: Molecule) -> list[list[int]]:
    """Atoms bonded to each atom."""
    near: list[list[int]] = [[] for _ in range(molecule.atoms)]
    for i, j in molecule.bonds.tolist():
        near[i].append(j)
        near[j].append(i)
    return near


def distances(molecule: Molecule) -> np.ndarray:
    """Number of bonds between each pair of atoms."""
    near = neighbours(molecule)
    hops = np.full((molecule.atoms, molecule.atoms), molecule.atoms)
    for start in range(molecule.atoms):
        hops[start, start] = 0
        front = [start]
        while front:
            front = sorted({j for i in front for j in near[i] if hops[start, j] == molecule.atoms} - {start})
            hops[start, front] = hops[start].max(where=hops[start] < molecule.atoms, initial=0) + 1
    return hops


def tree(molecule: Molecule, ties: Sequence[int] | None = None) -> Tree:
    """The Z-matrix of `molecule`.

    Args:
        molecule: to be placed.
        ties: a number for each atom, in place of handedness as what orders equivalent siblings: with it a chart that
            was saved is made again. Equal numbers leave them as the list of bonds has them.

    Raises:
        ValueError: if the covalent graph is not connected, has fewer than four atoms or no chain of three bonds.
    """
    near, rank, hops = neighbours(molecule), ranks(molecule), distances(molecule)
    if molecule.atoms < 4 or hops.max() >= molecule.atoms:
        raise ValueError("expected one connected molecule of at least 4 atoms: check the bonds of the topology")
    x = molecule.reference
    root = _root(molecule, near, rank, hops)
    order: list[int] = [root]
    rows: dict[int, tuple[int, int, int]] = {root: (-1, -1, -1)}

    def choose(parent, candidates, axis):
        """The candidates in order: heaviest rank first; equivalent ones by handedness, seen along the axis."""

        def among_equals(c):
            if ties is not None:
                return ties[c]
            return _handedness(x, parent, axis, c, [o for o in candidates if rank[o] == rank[c]])

        return sorted(candidates, key=lambda c: (-rank[c], among_equals(c)))

    queue = [root]
    while queue:
        parent = queue.pop(0)
        children = [c for c in near[parent] if c not in rows]
        if not children:
            continue
        up, upper, _ = rows[parent]
        if parent == root:
            spine = choose(parent, children, None)
            head = _toward(molecule, near, rank, hops, root, spine)
            rows[head] = (root, -1, -1)
            order.append(head)
            queue.append(head)
            # the root's other children are placed when a second atom beyond the head is known
            continue
        if up == root and upper == -1:
            children = choose(parent, children, root)
            rows[children[0]] = (parent, root, -1)
            for sibling in children[1:]:
                rows[sibling] = (parent, root, children[0])
            others = [c for c in near[root] if c not in rows]
            if others:
                others = choose(root, others, parent)
                rows[others[0]] = (root, parent, children[0])
                for sibling in others[1:]:
                    rows[sibling] = (root, parent, others[0])
            order += children + others
            queue += children + others
            continue
        children = choose(parent, children, up)
        rows[children[0]] = (parent, up, upper)
        for sibling in children[1:]:
            rows[sibling] = (parent, up, children[0])
        order += children
        queue += children
    if len(order) < molecule.atoms:
        raise ValueError("expected a molecule with a chain of three bonds, got one centre: it has no torsion to sample")
    depth = dict.fromkeys(order[:3], 0)
    for a in order[3:]:
        depth[a] = 1 + max(depth[r] for r in rows[a])
    order.sort(key=depth.__getitem__)  # stable
    starts = [k for k in range(3, len(order)) if depth[order[k]] != depth[order[k - 1]]] + [len(order)]
    free = [k > 2 and _turns(molecule, near, rows, a) for k, a in enumerate(order)]
    table = torch.tensor([rows[a] for a in order])
    rings = _rings(molecule, near, rows, order)
    for ring in rings:
        free[ring.places[0]], free[ring.places[1]] = True, False
    return Tree(torch.tensor(order), table, torch.tensor(free), tuple(pairwise(starts)), tuple(rings))


def _rings(molecule, near, rows, order):
    """The saturated rings of five, in the order of their places."""
    place = {atom: k for k, atom in enumerate(order)}
    lead = {}  # the place whose dihedral turns a bond
    for k, atom in enumerate(order[3:], 3):
        parent, up, beyond = rows[atom]
        if rows[beyond][:2] != (parent, up):
            lead.setdefault(frozenset((parent, up)), k)
    found = []
    for i, j in molecule.bonds.tolist():
        if rows[i][0] == j or rows[j][0] == i:
            continue
        path = _path(rows, i, j)
        turning = [frozenset(bond) for bond in pairwise(path[1:-1])]
        saturated = sum(len(near[atom]) == 4 for atom in path)
        if len(path) != 5 or saturated < SATURATED or any(bond not in lead for bond in turning):
            continue
        first, second = (lead[bond] for bond in turning)
        if second < first:
            path, first, second = path[::-1], second, first
        found.append(Ring((first, second), tuple(path)))
    return sorted(found, key=lambda ring: (ring.places, [place[a] for a in ring.atoms]))


def _path(rows, i, j):
    """The atoms from i to j along the tree."""
    up = {i: [i], j: [j]}
    for line in up.values():
        while rows[line[-1]][0] >= 0:
            line.append(rows[line[-1]][0])
    apex = next(a for a in up[i] if a in up[j])
    return up[i][: up[i].index(apex) + 1] + up[j][: up[j].index(apex)][::-1]


def _dense(keys):
    level = {key: n for n, key in enumerate(sorted({_frozen(k) for k in keys}))}
    return [level[_frozen(k)] for k in keys]


def _frozen(key):
    return (key[0], tuple(key[1])) if isinstance(key, tuple) else key


def _amides(molecule, near):
    """Bonds (carbonyl carbon, nitrogen)."""
    z = molecule.elements.tolist()
    carbonyl = [c for c in range(molecule.atoms) if z[c] == 6 and any(z[o] == 8 and len(near[o]) == 1 for o in near[c])]
    return [(c, n) for c in carbonyl for n in near[c] if z[n] == 7]


def _root(molecule, near, rank, hops):
    """The atom from which most amide bonds are passed from carbon to nitrogen, an alpha nitrogen where there is one."""
    z = molecule.elements.tolist()
    amides = _amides(molecule, near)
    carbonyl = [c for c in range(molecule.atoms) if z[c] == 6 and any(z[o] == 8 and len(near[o]) == 1 for o in near[c])]

    def score(i):
        along = sum(int(hops[i, c] < hops[i, n]) for c, n in amides)
        alpha = z[i] == 7 and any(hops[i, c] == 2 and z[m] == 6 for m in near[i] for c in carbonyl if c in near[m])
        return along, bool(alpha), len(near[i]) > 1, -hops[i].max(), rank[i]

    candidates = [i for i in range(molecule.atoms) if z[i] > 1]
    return max(candidates, key=score)


def _toward(molecule, near, rank, hops, root, candidates):
    """The root's neighbour that most atoms lie behind (and that has neighbours of its own)."""
    behind = [int((hops[c] < hops[root]).sum()) if len(near[c]) > 1 else -1 for c in candidates]
    return max(candidates, key=lambda c: (behind[candidates.index(c)], rank[c]))


def _handedness(x, parent, axis, atom, tied):
    """Sort key among equivalent atoms: the one that sees most of the others counter-clockwise comes first."""
    if axis is None:
        return 0.0
    turns = [float(dihedral(x[o], x[parent], x[axis], x[atom])) for o in tied if o != atom]
    ahead = sum(0.2 < t < np.pi - 0.2 for t in turns)
    spread = sum(t % (2 * np.pi) for t in turns)
    return -10.0 * ahead + 1e-3 * spread


def _turns(molecule, near, rows, atom):
    parent, up, beyond = rows[atom]
    if rows[beyond][:2] == (parent, up):
        return False  # placed relative to its first sibling
    if not in_ring(near, parent, up):
        return barrier(molecule, parent, up) < STIFF_BARRIER
    # a saturated ring puckers: the one dihedral along it leads, the rest follows
    along = all(in_ring(near, i, j) for i, j in ((atom, parent), (up, beyond)))
    return along and barrier(molecule, parent, up) < PUCKER_BARRIER


def in_ring(near: list[list[int]], i: int, j: int) -> bool:
    """Whether the bond i-j is part of a ring."""
    seen, front = {i}, [k for k in near[i] if k != j]
    while front:
        if j in front:
            return True
        seen |= set(front)
        front = list({m for k in front for m in near[k]} - seen)
    return False


def barrier(molecule: Molecule, j: int, k: int) -> float:
    """Height (kJ/mol) of the periodic-torsion energy of turning the bond j-k as a rigid rotor."""
    profile = rotor(molecule, j, k)
    return float(profile.max() - profile.min())


def rotor(molecule: Molecule, j: int, k: int, count: int = 72) -> np.ndarray:
    """Periodic-torsion energy (kJ/mol) of turning the bond j-k by 2 pi n / count from the prepared geometry."""
    ff = molecule.forcefield
    index = ff.torsion_index
    axis = torch.tensor([j, k])
    about = ((index[:, 1:3] == axis).all(1)) | ((index[:, 1:3] == axis.flip(0)).all(1))
    pairs = {frozenset(b) for b in molecule.bonds.tolist()}
    proper = [all(frozenset(row[k : k + 2]) in pairs for k in range(3)) for row in index.tolist()]
    about &= torch.tensor(proper, dtype=torch.bool).reshape(-1)
    x = molecule.reference[index[about]]
    phi = dihedral(*x.unbind(1))
    turn = torch.arange(count) * (2 * np.pi / count)
    n, phase, height = ff.torsion_periodicity[about], ff.torsion_phase[about], ff.torsion_barrier[about]
    energy = height * (1 + torch.cos(n * (phi + turn[:, None]) - phase))
    return energy.sum(1).numpy()
