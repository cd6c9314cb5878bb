"""Named dihedral angles of a peptide, and the two things that must not change: handedness and cis/trans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from mdtraj import Topology

GAMMA = ("CG", "CG1", "OG", "OG1", "SG")
BEFORE_AMIDE = ("CA", "CH3")  # the carbon in front of C=O, in a residue or a cap
AFTER_AMIDE = ("CA", "CH3", "C")  # the carbon behind N; NME calls it CH3 or C


class Dihedral(NamedTuple):
    """One dihedral: `kind` phi, psi, omega or chi1, residue number (as in the file), and its four atoms.

    Omega carries the number of the residue in front of the peptide bond.
    """

    kind: str
    residue: int
    atoms: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.residue}"


def dihedral_table(topology: Topology) -> list[Dihedral]:
    """All phi, psi, omega and chi1 of a peptide in order of residue, those across caps included.

    Residues are numbered as in the file where the numbers are unique, from 1 otherwise.
    """
    table = []
    for numbers, residues in _peptides(topology):
        names = [{atom.name: atom.index for atom in residue.atoms} for residue in residues]
        for i, (number, here) in enumerate(zip(numbers, names, strict=True)):
            before = names[i - 1] if i else {}
            after = names[i + 1] if i + 1 < len(names) else {}
            quartets: dict[str, tuple] = {
                "phi": (before.get("C"), here.get("N"), here.get("CA"), here.get("C")),
                "psi": (here.get("N"), here.get("CA"), here.get("C"), after.get("N")),
                "omega": (_first(here, BEFORE_AMIDE), here.get("C"), after.get("N"), _first(after, AFTER_AMIDE)),
                "chi1": (here.get("N"), here.get("CA"), here.get("CB"), _first(here, GAMMA)),
            }
            table += [Dihedral(kind, number, atoms) for kind, atoms in quartets.items() if None not in atoms]
    return table


def dihedral_angles(
    positions: Float[np.ndarray, "*batch atoms 3"], table: Sequence[Dihedral]
) -> Float[np.ndarray, "*batch dihedrals"]:
    """The angles of `table` in rad, in (-pi, pi], IUPAC sign; the unit of length does not matter."""
    index = np.array([d.atoms for d in table], dtype=int).reshape(-1, 4)
    a, b, c, d = (positions[..., index[:, k], :].astype(np.float64) for k in range(4))
    axis = c - b
    left, right = np.cross(b - a, axis), np.cross(axis, d - c)
    sine = np.sum((b - a) * right, axis=-1) * np.linalg.norm(axis, axis=-1)
    return np.arctan2(sine, np.sum(left * right, axis=-1))


def circular(angles: Float[np.ndarray, "*batch dihedrals"]) -> Float[np.ndarray, "*batch dihedrals 2"]:
    """Sine and cosine of each angle: what averages, autocorrelations and TICA may be taken of."""
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1)


def chiral_centres(topology: Topology) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Residue number and the atoms (CA, N, C, CB) of every residue that has a CB; glycine and caps have none."""
    centres = []
    for numbers, residues in _peptides(topology):
        for number, residue in zip(numbers, residues, strict=True):
            names = {atom.name: atom.index for atom in residue.atoms}
            if all(n in names for n in ("CA", "N", "C", "CB")):
                centres.append((number, (names["CA"], names["N"], names["C"], names["CB"])))
    return centres


def handedness(
    positions: Float[np.ndarray, "*batch atoms 3"], centres: Sequence[tuple[int, tuple[int, int, int, int]]]
) -> Float[np.ndarray, "*batch centres"]:
    """Signed volume (N - CA) . (C - CA) x (CB - CA) of each centre: positive for L, negative for D residues."""
    index = np.array([atoms for _, atoms in centres], dtype=int).reshape(-1, 4)
    ca, n, c, cb = (positions[..., index[:, k], :].astype(np.float64) for k in range(4))
    return np.sum((n - ca) * np.cross(c - ca, cb - ca), axis=-1)


def is_cis(omega: Float[np.ndarray, "*any"]) -> Bool[np.ndarray, "*any"]:
    """Whether a peptide bond (rad) is nearer to cis (0) than to trans (pi)."""
    return np.cos(omega) > 0


def _peptides(topology):
    for chain in topology.chains:
        residues = list(chain.residues)
        numbers = [residue.resSeq for residue in residues]
        yield (numbers if len(set(numbers)) == len(numbers) else range(1, len(numbers) + 1)), residues


def _first(names, candidates):
    return next((names[c] for c in candidates if c in names), None)
