"""PDB text: its atom records, and positions written as such."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float
from openmm import app, unit

from timewarp.md.faults import InputError
from timewarp.md.record import Atom, Contents, number


def write_pdb(topology: app.Topology, positions: Float[np.ndarray, "atoms 3"], path: str | os.PathLike) -> None:
    """Write one structure (positions in nm), with the residue numbers of the topology."""
    Path(path).write_text(pdb_text(topology, positions))


def pdb_text(topology: app.Topology, positions: Float[np.ndarray, "atoms 3"]) -> str:
    """One structure (positions in nm) as PDB text, with the residue numbers of the topology."""
    text = io.StringIO()
    # no header: it carries the date, and the same molecule should give the same bytes
    app.PDBFile.writeModel(topology, np.asarray(positions) * unit.nanometer, text, keepIds=True)
    app.PDBFile.writeFooter(topology, text)
    return text.getvalue()


def read_pdb(text: str) -> Contents:
    """The first model of PDB text."""
    found, part, models = Contents(), 0, 0
    for count, line in enumerate(text.splitlines(), 1):
        record = line[:6].strip().upper()
        if record == "MODEL":
            models += 1
        if models > 1 and found.atoms:
            continue
        if record in ("ATOM", "HETATM"):
            found.atoms.append(_pdb_atom(line, part, f"line {count}"))
            found.ended = False
        elif record == "TER":
            part += 1
            found.ended = True
        elif record in ("END", "ENDMDL", "MASTER", "CONECT"):
            found.ended = True
        elif record == "SEQRES":
            chain = line[11:12].strip()
            found.listed[chain] = found.listed.get(chain, 0) + len(line[19:].split())
    if models > 1:
        found.notices.append(f"took the first of {models} models")
    return found


def _pdb_atom(line: str, part: int, where: str) -> Atom:
    if len(line.rstrip()) < 54:
        raise InputError(
            f"expected coordinates up to column 54, found {where} to end at column {len(line.rstrip())}; "
            "the file is truncated or not in PDB columns: write it again"
        )
    position = [number(line[i : i + 8], "coordinates", where) / 10 for i in (30, 38, 46)]
    occupancy = line[54:60].strip()
    element = line[76:78].strip().upper()
    return Atom(
        name=line[12:16].strip().upper(),
        altloc=line[16:17].strip(),
        residue=line[17:21].strip().upper(),
        chain=line[21:22].strip(),
        number=line[22:27].strip(),
        position=np.array(position),
        occupancy=number(occupancy, "an occupancy", where) if occupancy else 1.0,
        element=element if element.isalpha() else "",
        part=part,
        where=where,
    )
