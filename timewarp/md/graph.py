"""A topology as plain values, for dictionaries that are stored as text."""

from __future__ import annotations

import json

from openmm import app


def to_text(topology: app.Topology) -> str:
    """Chains, residues, atoms and bonds as JSON; what a flow needs of a topology, and names to tell them by."""
    chains = [chain.id for chain in topology.chains()]
    residues = [[residue.name, residue.chain.index, residue.id] for residue in topology.residues()]
    atoms = [[a.name, a.element.symbol if a.element else "", a.residue.index] for a in topology.atoms()]
    return json.dumps([chains, residues, atoms, [[a.index, b.index] for a, b in topology.bonds()]])


def from_text(text: str) -> app.Topology:
    """The inverse of `to_text`."""
    chains, residues, atoms, bonds = json.loads(text)
    topology = app.Topology()
    chain = [topology.addChain(name) for name in chains]
    residue = [topology.addResidue(name, chain[i], number) for name, i, number in residues]
    atom = [
        topology.addAtom(name, app.element.get_by_symbol(symbol) if symbol else None, residue[i])
        for name, symbol, i in atoms
    ]
    for a, b in bonds:
        topology.addBond(atom[a], atom[b])
    return topology
