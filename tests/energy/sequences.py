"""Forty peptides of one to eight residues, the same each time, for comparisons that must hold for any peptide."""

import random

from openmm import app

from timewarp.md.residues import LETTERS

HISTIDINES = ("HID", "HIE", "HIP")
NEUTRAL = {"ASP": "ASH", "GLU": "GLH", "LYS": "LYN"}  # known within caps alone
EACH = 5  # of each length


def forty() -> list[str]:
    """Five of each length: one free, one neutral where it can be, and three under caps; every letter occurs."""
    rng = random.Random(40)
    deck: list[str] = []
    found = []
    for length in range(1, 9):
        for kind in range(EACH):
            if len(deck) < length:
                deck += rng.sample(sorted(LETTERS), len(LETTERS))
            names = [LETTERS[deck.pop()] for _ in range(length)]
            names = [rng.choice(HISTIDINES) if name == "HIS" else name for name in names]
            if kind == 4:
                names = [NEUTRAL.get(name, name) for name in names]
            head, tail = [(("ACE",), ("NME",)), ((), ("NH2",)), (("ACE",), ()), ((), ()), (("ACE",), ("NH2",))][kind]
            if length == 1 and kind == 3:
                tail = ("NME",)
            found.append("-".join((*head, *names, *tail)))
    return found


def caps_joined(topology: app.Topology) -> app.Topology:
    """The same atoms, with each cap in the residue that it sits on, where the templates of CHARMM36 have it."""
    joined, at = app.Topology(), {}
    chain = joined.addChain()
    residues = list(topology.residues())
    for i, residue in enumerate(residues):
        if residue.name == "ACE":
            own = joined.addResidue(residues[i + 1].name, chain)
        elif residue.name not in ("NME", "NH2") and (not i or residues[i - 1].name != "ACE"):
            own = joined.addResidue(residue.name, chain)
        for atom in residue.atoms():
            at[atom] = joined.addAtom(atom.name, atom.element, own)
    for one, other in topology.bonds():
        joined.addBond(at[one], at[other])
    return joined
