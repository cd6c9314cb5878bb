"""Which hydrogens a peptide has: from those in the file, then from residue names, then the usual ones at pH 7."""

from __future__ import annotations

import numpy as np

from timewarp.md.faults import InputError
from timewarp.md.residues import DEFAULT, VARIANTS, Residue, hydrogens

REACH = 0.145  # nm, the longest bond of a hydrogen that is taken
BRIDGE = 0.25  # nm, between the sulfurs of a disulfide
_SWAP = {"ASP": ("OD1", "OD2"), "GLU": ("OE1", "OE2")}


def protonate(residues: list[Residue], notices: list[str]) -> list[tuple[int, int]]:
    """Settle the variant of each residue, and hand each hydrogen to its heavy atom; find the disulfides.

    `hydrogens` come in with their names and leave with the heavy atoms that they sit on; those that have no
    place in the variant are left out. Decisions are appended to `notices`.

    Raises:
        InputError: if names and hydrogens say different things of a disulfide, or one acid has two protons.
    """
    for residue in residues:
        _hand_over(residue, notices)
    bridges = _bridges(residues)
    joined = {i for bridge in bridges for i in bridge}
    for i, residue in enumerate(residues):
        if residue.name == "CYS":
            if residue.variant == "CYX" and i not in joined:
                raise InputError(
                    f"expected two CYX with their sulfurs within {BRIDGE} nm, found {residue.label} alone; name it CYS"
                )
            residue.variant = "CYX" if i in joined else "CYS"
        elif residue.name in DEFAULT:
            _settle(residue, notices)
        _trim(residue, i == 0, notices)
    for i, j in bridges:
        notices.append(f"joined {residues[i].label} and {residues[j].label} by a disulfide bond")
    return bridges


def _hand_over(residue: Residue, notices: list[str]) -> None:
    names, points = list(residue.heavy), np.array(list(residue.heavy.values()))
    kept, lost = [], []
    for name, position in residue.hydrogens:
        gaps = np.linalg.norm(points - position, axis=1)
        if gaps.min() < REACH:
            kept.append((names[int(gaps.argmin())], position))
        else:
            lost.append(name)
    if lost:
        notices.append(f"dropped hydrogens of {residue.label} that are bonded to nothing: {', '.join(lost)}")
    residue.hydrogens = kept


def _count(residue: Residue, atom: str) -> int:
    return sum(owner == atom for owner, _ in residue.hydrogens)


def _bridges(residues: list[Residue]) -> list[tuple[int, int]]:
    sulfurs = [(i, r.heavy["SG"]) for i, r in enumerate(residues) if r.name == "CYS" and "SG" in r.heavy]
    found: list[tuple[int, int]] = []
    for place, (i, x) in enumerate(sulfurs):
        for j, y in sulfurs[place + 1 :]:
            if np.linalg.norm(x - y) > BRIDGE:
                continue
            for k in (i, j):
                if _count(residues[k], "SG"):
                    raise InputError(
                        f"expected no hydrogen on the sulfurs of a disulfide, found one in {residues[k].label}; remove "
                        "it, or move the sulfurs apart"
                    )
                if any(k in bridge for bridge in found):
                    raise InputError(
                        f"expected disulfides of two residues, found {residues[k].label} near two others; "
                        "correct the file"
                    )
            found.append((i, j))
    return found


def _settle(residue: Residue, notices: list[str]) -> None:
    """HIS, ASP, GLU, LYS: what the hydrogens say comes first, then the name, then pH 7."""
    named, atoms = residue.variant, VARIANTS[DEFAULT[residue.name]][1]
    counts = {atom: _count(residue, atom) for atom in atoms}
    if residue.name in _SWAP:
        one, two = _SWAP[residue.name]
        if sum(counts.values()) > 1:
            raise InputError(f"expected one proton at most on the acid of {residue.label}, found two; remove one")
        if counts[one]:  # the force field calls the protonated oxygen the second one
            residue.heavy[one], residue.heavy[two] = residue.heavy[two], residue.heavy[one]
            residue.hydrogens = [(two if owner == one else owner, x) for owner, x in residue.hydrogens]
            counts = {one: 0, two: 1}
    said = None
    if any(counts.values()):
        said = next((v for v, (name, has) in VARIANTS.items() if name == residue.name and has == counts), None)
    if said == "LYN" and named is None and not _others(residue):
        said = None  # a file that lacks other hydrogens too: the third one is missing, not absent
    if said is not None and named is not None and said != named:
        notices.append(f"took {residue.label} as {said}: its hydrogens say so")
    residue.variant = said or named or DEFAULT[residue.name]
    if residue.name == "HIS" and said is None and named is None:
        notices.append(f"took {residue.label} as {residue.variant}: neither its hydrogens nor its name say more")
    if residue.name == "LYS" and said == "LYN" and named is None:
        notices.append(f"took {residue.label} as LYN: it has all of its hydrogens but the third on NZ")


def _others(residue: Residue) -> bool:
    """Whether the hydrogens on carbon are all there."""
    wanted = [parent for _, parent in hydrogens(residue.name, residue.variant, False) if parent[0] == "C"]
    return all(_count(residue, parent) >= wanted.count(parent) for parent in wanted)


def _trim(residue: Residue, first: bool, notices: list[str]) -> None:
    room: dict[str, int] = {}
    for _, parent in hydrogens(residue.name, residue.variant, first):
        room[parent] = room.get(parent, 0) + 1
    kept: list[tuple[str, np.ndarray]] = []
    surplus: list[tuple[str, np.ndarray]] = []
    for parent, position in residue.hydrogens:
        room[parent] = room.get(parent, 0) - 1
        (kept if room[parent] >= 0 else surplus).append((parent, position))
    if surplus:
        where = ", ".join(parent for parent, _ in surplus)
        notices.append(f"dropped hydrogens that {residue.printed} has no place for, in {residue.label} on {where}")
    residue.hydrogens = kept
