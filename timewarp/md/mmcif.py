"""The atom records of mmCIF text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from timewarp.md.faults import InputError
from timewarp.md.record import Atom, Contents, number

_WORD = re.compile(r"\S+")
_CLOSE = {quote: re.compile(rf"{quote}(?=\s|$)") for quote in "'\""}
_PREFIX = "_atom_site."


def read_mmcif(text: str) -> Contents:
    """The first model of the `_atom_site` loop.

    Raises:
        InputError: if a row or a text field is cut short, or a column that is needed is not there.
    """
    columns, values, after = _loop(text)
    found = Contents(ended=after)
    if not values:
        return found
    if len(values) % len(columns):
        raise InputError(
            f"expected rows of {len(columns)} values for the atoms, found {len(values) % len(columns)} in the last "
            "row; the file is truncated or damaged: fetch it again"
        )
    place = {name: i for i, name in enumerate(columns)}
    for needed in ("Cartn_x", "Cartn_y", "Cartn_z"):
        if needed not in place:
            raise InputError(f"expected the column {_PREFIX}{needed}, found none; write the file again")
    models: list[str] = []
    for start in range(0, len(values), len(columns)):
        row = values[start : start + len(columns)]

        def get(*names: str, row: list[str] = row) -> str:
            """The first of these columns that says something."""
            said = (row[place[name]] for name in names if name in place)
            return next((value for value in said if value not in (".", "?", "")), "")

        model = get("pdbx_PDB_model_num")
        models += [] if model in models else [model]
        if model == models[0]:
            found.atoms.append(_atom(get, f"atom {start // len(columns) + 1}"))
    if len(models) > 1:
        found.notices.append(f"took the first of {len(models)} models")
    return found


def _atom(get, where: str) -> Atom:
    occupancy = get("occupancy")
    return Atom(
        name=get("auth_atom_id", "label_atom_id").upper(),
        altloc=get("label_alt_id"),
        residue=get("auth_comp_id", "label_comp_id").upper(),
        chain=get("auth_asym_id", "label_asym_id"),
        number=get("auth_seq_id", "label_seq_id") + get("pdbx_PDB_ins_code"),
        position=np.array([number(get(f"Cartn_{axis}"), "coordinates", where) / 10 for axis in "xyz"]),
        occupancy=number(occupancy, "an occupancy", where) if occupancy else 1.0,
        element=get("type_symbol").upper(),
        part=0,
        where=where,
    )


def _loop(text: str) -> tuple[list[str], list[str], bool]:
    """The columns and the values of the loop of atoms, and whether the file goes on after it."""
    columns: list[str] = []
    values: list[str] = []
    heading = False
    for token, quoted in _tokens(text):
        word = "" if quoted else token.lower()
        if values and (word in ("", "loop_") or word.startswith(("_", "data_"))) and not quoted:
            return columns, values, True
        if word == "loop_":
            heading, columns = True, []
        elif heading and word.startswith(_PREFIX):
            columns.append(token[len(_PREFIX) :])
        elif word.startswith("_"):
            heading, columns = False, []
        elif heading and columns and (token or quoted):
            values.append(token)
    return columns, values, False


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """The words of mmCIF text, and whether each was quoted; an empty word for a comment, which closes a loop."""
    field: list[str] | None = None
    for line in text.splitlines():
        if field is not None:
            if line.startswith(";"):
                yield "\n".join(field), True
                field = None
            else:
                field.append(line)
        elif line.startswith(";"):
            field = [line[1:]]
        elif any(mark in line for mark in "'\"#"):
            yield from _quoted(line)
        else:
            for word in line.split():
                yield word, False
    if field is not None:
        raise InputError("expected the end of a text field, found the end of the file; fetch the file again")


def _quoted(line: str) -> Iterator[tuple[str, bool]]:
    """The words of a line with quotes or a comment, in one pass however many quotes are left open."""
    at, open_ended = 0, set()
    while match := _WORD.search(line, at):
        mark, at = line[match.start()], match.end()
        if mark == "#":
            yield "", False
            return
        close = None
        if mark in _CLOSE and mark not in open_ended:
            close = _CLOSE[mark].search(line, match.start() + 1)
            if close is None:
                open_ended.add(mark)
        if close is None:
            yield match.group(), False
        else:
            at = close.end()
            yield line[match.start() + 1 : close.start()], True
