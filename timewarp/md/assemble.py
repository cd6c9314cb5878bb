"""Atom records -> the residues of one peptide chain, or what stands in the way."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from timewarp.md.faults import InputError
from timewarp.md.protons import protonate
from timewarp.md.record import Atom, Contents
from timewarp.md.residues import (
    AMINO,
    DEFAULT,
    DEXTRO,
    HEAD,
    SUPPORTED,
    TAIL,
    Residue,
    atom_aliases,
    bonds,
    heavy_atoms,
    hydrogens,
    standard,
)
from timewarp.md.sequence import check_ends

_WATER = "HOH H2O WAT DOD D2O SOL TIP TIP2 TIP3 TIP4 TIP5 TP3 TP4 TP5 SPC OPC T3P T4P"
_IONS = (
    "NA NA+ SOD CL CL- CLA K K+ POT MG MG2 CA CAL CA2 ZN ZN2 BR BR- I IOD F LI LI+ RB RB+ CS CS+ CES MN MN2 FE FE2 "
    "CU CU1 CU2 CO NI CD HG BA SR AG SO4 PO4 NO3 NH4"
)
_NUCLEIC = "A C G T U I DA DC DG DT DU DI RA RC RG RU ADE CYT GUA THY URA"
WATER, IONS, NUCLEIC = (frozenset(names.split()) for names in (_WATER, _IONS, _NUCLEIC))
BOND = (0.08, 0.22)  # nm, between heavy atoms
CONTACT = 0.15  # nm, the closest that heavy atoms come without a bond
SAME = 0.06  # nm, below which two atoms are at the same place
MOST = 100  # atoms of one residue; none of those known has 30


def assemble(contents: Contents) -> tuple[list[Residue], list[tuple[int, int]], list[str]]:
    """The residues of the peptide, its disulfides, and what was left out or decided.

    Raises:
        InputError: if the records are not those of one peptide of up to ten residues without gaps.
    """
    notices = list(contents.notices)
    atoms = _without_solvent(contents.atoms, notices)
    unknown = list(dict.fromkeys(a.residue or "(blank)" for a in atoms if standard(a.residue) is None))
    if unknown:
        kind = "nucleic acid" if set(unknown) <= NUCLEIC else "unknown residue or ligand"
        raise InputError(
            f"expected residues among {SUPPORTED}, found {kind} {', '.join(unknown[:3])}; remove or rename it"
        )
    _one_chain(atoms)
    groups: dict[tuple[str, str], list[Atom]] = {}
    for atom in atoms:
        groups.setdefault((atom.chain, atom.number), []).append(atom)
    if len(groups) > 200:  # do not take a protein apart to say that it is too large
        raise InputError(
            f"expected a peptide of 1 to 10 amino acids, found {len(groups)} residues; cut it to a fragment"
        )
    residues = [_residue(group, notices) for group in groups.values()]
    absent = sum(a.occupancy <= 0 for a in atoms)
    if 0 < absent < len(atoms):  # a file without any occupancies says nothing
        notices.append(
            f"{absent} atoms have occupancy 0 (their places are a guess); kept those that are not alternates"
        )
    check_ends(residues)
    _complete_enough(residues, contents, notices)
    _geometry(residues)
    bridges = protonate(residues, notices)
    check_ends(residues)
    return residues, bridges, notices


def _without_solvent(atoms: list[Atom], notices: list[str]) -> list[Atom]:
    kept = [a for a in atoms if a.residue not in WATER and a.residue not in IONS]
    for names, what in ((WATER, "water"), (IONS, "ions")):
        dropped = {(a.chain, a.number, a.part, a.residue) for a in atoms if a.residue in names}
        if dropped:
            which = "" if what == "water" else f" ({', '.join(sorted({key[3] for key in dropped}))})"
            notices.append(f"dropped {what}: {len(dropped)} residue{'s' if len(dropped) > 1 else ''}{which}")
    if not kept:
        raise InputError("expected a peptide, found only water or ions; give the file of a peptide")
    return kept


def _one_chain(atoms: list[Atom]) -> None:
    chains = list(dict.fromkeys(a.chain or "(blank)" for a in atoms))
    if len(chains) > 1:
        raise InputError(
            f"expected one chain, found {len(chains)} ({', '.join(chains[:5])}); keep one of them in the file"
        )
    parts: dict[str, set[int]] = {}
    for atom in atoms:
        parts.setdefault(atom.number, set()).add(atom.part)
    if any(len(part) > 1 for part in parts.values()):
        raise InputError(
            "expected one chain, found several with TER records between them; keep one of them in the file"
        )


def _residue(atoms: list[Atom], notices: list[str]) -> Residue:
    label = f"{atoms[0].residue} {atoms[0].number}".strip()
    kept = _one_conformation(atoms, label, notices)
    if len(kept) > MOST:
        raise InputError(f"expected the atoms of one residue at {label}, found {len(kept)}; renumber the residues")
    names = list(dict.fromkeys(a.residue for a in kept))
    if len(names) > 1:
        raise InputError(f"expected one residue at number {kept[0].number}, found {' and '.join(names)}; renumber them")
    found = standard(names[0])
    assert found is not None
    residue = Residue(found[0], found[1], label=f"{names[0]} {kept[0].number}".strip(), dextro=names[0] in DEXTRO)
    aliases, allowed, repeated = atom_aliases(residue.name), heavy_atoms(residue.name), set()
    for atom in kept:
        name = atom.name if atom.name in allowed else aliases.get(atom.name, atom.name)
        symbol = name[0] if name in allowed else (atom.element or name.lstrip("0123456789")[:1])
        if name in repeated:
            raise InputError(f"expected each atom once, found {name} of {residue.label} twice; remove one of them")
        repeated.add(name)
        if name in allowed:
            if atom.element not in ("", symbol):
                raise InputError(
                    f"expected the element {symbol} for {name} of {residue.label}, found {atom.element}; correct "
                    "columns 77-78 (type_symbol)"
                )
            residue.heavy[name] = atom.position
        elif symbol in ("H", "D"):
            residue.hydrogens.append((atom.name, atom.position))
        else:
            raise InputError(
                f"expected only the atoms of {residue.name}, found {atom.name or 'one without a name'} in "
                f"{residue.label}; modified residues are not supported: remove or rename it"
            )
    return residue


def _one_conformation(atoms: list[Atom], label: str, notices: list[str]) -> list[Atom]:
    places = sorted({a.altloc for a in atoms if a.altloc})
    if len(places) < 2:
        return atoms
    names = list(dict.fromkeys(a.residue for a in atoms))
    if len(names) > 1:
        raise InputError(
            f"expected alternate locations of one residue, found {' and '.join(names)} at {label}; keep one in the file"
        )
    weight = {place: float(np.mean([a.occupancy for a in atoms if a.altloc == place])) for place in places}
    order = sorted(places, key=lambda place: -weight[place])
    if weight[order[0]] - weight[order[1]] < 1e-3:
        raise InputError(
            f"expected alternate locations of which one is occupied most, found {order[0]} and {order[1]} of {label} "
            f"both at {weight[order[0]]:.2f}; keep one in the file"
        )
    notices.append(f"took alternate location {order[0]} of {label} (occupancy {weight[order[0]]:.2f})")
    return [a for a in atoms if a.altloc in ("", order[0])]


def _complete_enough(residues: list[Residue], contents: Contents, notices: list[str]) -> None:
    for i, residue in enumerate(residues):
        needed = HEAD.get(residue.name) or TAIL.get(residue.name) or ("N", "CA", "C", "O")
        missing = [name for name in needed if name not in residue.heavy]
        if missing:
            raise InputError(
                f"expected the backbone of {residue.label}, found no {', '.join(missing)}; "
                "the file is damaged or truncated: add those atoms or remove the residue"
            )
        if "OXT" in residue.heavy and i < len(residues) - 1:
            raise InputError(
                f"expected OXT at the end of the chain, found it in {residue.label}, which {residues[i + 1].label} "
                "follows; give one chain, or remove OXT"
            )
    listed, there = contents.listed.get(contents.atoms[0].chain, 0), len(residues)
    if not contents.ended:
        short = _short(residues)
        what = f"{there} of {listed} residues" if listed > there else f"no {short} in {residues[-1].label}"
        if short or listed > there:
            raise InputError(
                f"expected a whole file, found {what}, and no END; it is truncated: fetch it again, or add END"
            )
    if listed > there:
        notices.append(f"the file lists {listed} residues and has {there}: the others are left out")


def _short(residues: list[Residue]) -> str:
    """What the last residue lacks though the others, or its kind, have it."""
    last = residues[-1]
    lacking = heavy_atoms(last.name) - {"OXT"} - last.heavy.keys()
    if any(residue.hydrogens for residue in residues):  # then its author wrote all atoms, as a rule
        lacking |= {"OXT"} - last.heavy.keys() if last.name in AMINO else set()
        if len(last.hydrogens) < len(hydrogens(last.name, last.variant or DEFAULT.get(last.name), False)) - 1:
            lacking |= {"hydrogens"}
    return ", ".join(sorted(lacking))


def _geometry(residues: list[Residue]) -> None:
    """Raise where bonds are broken or atoms lie on top of each other."""
    for residue in residues:
        for a, b in bonds(residue.name):
            if a in residue.heavy and b in residue.heavy:
                length = float(np.linalg.norm(residue.heavy[a] - residue.heavy[b]))
                if not BOND[0] < length < BOND[1]:
                    raise InputError(
                        f"expected a bond between {a} and {b} of {residue.label}, found them {length:.3g} nm apart; "
                        "correct their coordinates (in angstrom)"
                    )
    for one, two in pairwise(residues):
        gap = float(np.linalg.norm(one.heavy["C"] - two.heavy["N"]))
        if not BOND[0] < gap < BOND[1]:
            raise InputError(
                f"expected a peptide bond, found {gap:.3g} nm between {one.label} and {two.label} (chain break); "
                "add the residues between them, or keep one part"
            )
    _contacts(residues)


def _contacts(residues: list[Residue]) -> None:
    bonded: set[frozenset[tuple[int, str]]] = set()
    for i, residue in enumerate(residues):
        bonded.update(frozenset({(i, a), (i, b)}) for a, b in bonds(residue.name))
        bonded.add(frozenset({(i, "C"), (i + 1, "N")}))
    keys = [(i, name) for i, residue in enumerate(residues) for name in residue.heavy]
    keys += [(i, name) for i, residue in enumerate(residues) for name, _ in residue.hydrogens]
    places = [x for residue in residues for x in residue.heavy.values()]
    count = len(places)
    places += [x for residue in residues for _, x in residue.hydrogens]
    points = np.array(places)
    gaps = np.linalg.norm(points[:, None] - points, axis=-1)
    for i, j in zip(*np.nonzero(np.triu(gaps < CONTACT, 1)), strict=True):
        heavy = max(i, j) < count
        if gaps[i, j] < SAME or (heavy and frozenset({keys[i], keys[j]}) not in bonded):
            (one, a), (two, b) = keys[i], keys[j]
            raise InputError(
                f"expected atoms that do not overlap (rings and links among residues are not supported), found {a} of "
                f"{residues[one].label} and {b} of {residues[two].label} {gaps[i, j]:.3f} nm apart; correct the file"
            )
