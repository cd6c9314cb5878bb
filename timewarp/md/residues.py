"""The residues that can be sampled: their names, their variants, and which atoms they have.

Atom names come from the tables that OpenMM ships, so that topologies look to other tools as OpenMM's own do.
Hydrogens are told by the heavy atom they sit on, since no two programs agree on their names.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from openmm import app

LETTERS = {
    **{"A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS"},
    **{"I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP"},
    **{"Y": "TYR", "V": "VAL"},
}
AMINO = frozenset(LETTERS.values())
HEAD = {"ACE": ("CH3", "C", "O")}  # caps of the N-terminus, with their heavy atoms
TAIL = {"NME": ("N", "C"), "NH2": ("N",)}  # of the C-terminus
VARIANTS = {  # variant: (residue, the hydrogens on its titratable atoms)
    "HID": ("HIS", {"ND1": 1, "NE2": 0}),
    "HIE": ("HIS", {"ND1": 0, "NE2": 1}),
    "HIP": ("HIS", {"ND1": 1, "NE2": 1}),
    "CYS": ("CYS", {"SG": 1}),
    "CYX": ("CYS", {"SG": 0}),
    "ASP": ("ASP", {"OD1": 0, "OD2": 0}),
    "ASH": ("ASP", {"OD1": 0, "OD2": 1}),
    "GLU": ("GLU", {"OE1": 0, "OE2": 0}),
    "GLH": ("GLU", {"OE1": 0, "OE2": 1}),
    "LYS": ("LYS", {"NZ": 3}),
    "LYN": ("LYS", {"NZ": 2}),
}
DEFAULT = {"HIS": "HIE", "CYS": "CYS", "ASP": "ASP", "GLU": "GLU", "LYS": "LYS"}
ALIASES = {
    **{"HSD": "HID", "HSE": "HIE", "HSP": "HIP", "NMA": "NME", "NHE": "NH2", "LSN": "LYN", "CYS2": "CYX"},
    **{"HISD": "HID", "HISE": "HIE", "HISH": "HIP", "ASPH": "ASH", "ASPP": "ASH", "GLUH": "GLH", "GLUP": "GLH"},
}
DEXTRO = {  # names of the Protein Data Bank for D amino acids
    **{"DAL": "ALA", "DAR": "ARG", "DSG": "ASN", "DAS": "ASP", "DCY": "CYS", "DGN": "GLN", "DGL": "GLU", "DHI": "HIS"},
    **{"DIL": "ILE", "DLE": "LEU", "DLY": "LYS", "MED": "MET", "DPN": "PHE", "DPR": "PRO", "DSN": "SER", "DTH": "THR"},
    **{"DTR": "TRP", "DTY": "TYR", "DVA": "VAL"},
}
SUPPORTED = "the 20 amino acids (D by the names DAL DAR ...), HID HIE HIP CYX ASH GLH LYN, and the caps ACE NME NH2"


@dataclass
class Residue:
    """One residue or cap of a peptide.

    Attributes:
        name: OpenMM's residue name (a variant has its parent's).
        variant: its protonation state where it has several (a key of `VARIANTS`), else None.
        heavy: position in nm of each heavy atom that is known.
        hydrogens: for each hydrogen that is known, its heavy atom and its position in nm.
        label: how messages call it.
        dextro: whether it was named as a D amino acid.
    """

    name: str
    variant: str | None = None
    heavy: dict[str, np.ndarray] = field(default_factory=dict)
    hydrogens: list[tuple[str, np.ndarray]] = field(default_factory=list)
    label: str = ""
    dextro: bool = False

    @property
    def printed(self) -> str:
        """The name that says the protonation state where it is not the usual one, and that of a D amino acid."""
        usual = self.variant is None or self.variant == DEFAULT[self.name]
        if self.dextro and usual:
            return next(code for code, name in DEXTRO.items() if name == self.name)
        return self.name if usual else str(self.variant)


def standard(name: str) -> tuple[str, str | None] | None:
    """OpenMM's residue name and the variant that a name asks for, or None where it is not supported."""
    name = ALIASES.get(name, name)
    name = DEXTRO.get(name, name)
    if len(name) == 4 and name[0] in "NC" and (name[1:] in AMINO or name[1:] in VARIANTS):
        name = name[1:]  # Amber's names of terminal residues
    if name in VARIANTS:
        parent = VARIANTS[name][0]
        return parent, None if name == parent else name
    return (name, None) if name in AMINO or name in HEAD or name in TAIL else None


@cache
def _table(file: str) -> dict[str, ET.Element]:
    tree = ET.parse(os.path.join(os.path.dirname(app.__file__), "data", file))
    return {residue.attrib["name"]: residue for residue in tree.getroot().findall("Residue")}


@cache
def heavy_atoms(name: str) -> frozenset[str]:
    """The heavy atoms that a residue may have, OXT among them."""
    ends = {bond.attrib[end] for bond in _table("residues.xml")[name].findall("Bond") for end in ("from", "to")}
    return frozenset(atom for atom in ends if atom[0] not in "-+H")


@cache
def bonds(name: str) -> tuple[tuple[str, str], ...]:
    """The bonds among the heavy atoms of a residue."""
    pairs = [(bond.attrib["from"], bond.attrib["to"]) for bond in _table("residues.xml")[name].findall("Bond")]
    return tuple(pair for pair in pairs if set(pair) <= heavy_atoms(name))


@cache
def atom_aliases(name: str) -> dict[str, str]:
    """Other names of the heavy atoms of a residue."""
    found: dict[str, str] = {}
    for table in ("Protein", name):
        residue = _table("pdbNames.xml").get(table)
        for atom in [] if residue is None else residue.findall("Atom"):
            if atom.attrib["name"] in heavy_atoms(name):
                found |= {alias: atom.attrib["name"] for key, alias in atom.attrib.items() if key != "name"}
    return {alias: atom for alias, atom in found.items() if alias not in heavy_atoms(name)}


@cache
def hydrogens(name: str, variant: str | None, first: bool) -> tuple[tuple[str, str], ...]:
    """The hydrogens that a residue must have, as (name, heavy atom); `first` where its N is a charged end."""
    found = []
    for hydrogen in _table("hydrogens.xml")[name].findall("H"):
        variants, terminal = hydrogen.attrib.get("variant"), hydrogen.attrib.get("terminal")
        if (variants is None or variant in variants.split(",")) and (terminal is None or (first and "N" in terminal)):
            found.append((hydrogen.attrib["name"], hydrogen.attrib["parent"]))
    if first and name in AMINO and name != "PRO" and ("H", "N") not in found:
        raise AssertionError(f"the table of hydrogens has no H for {name}")
    return tuple(found)
