"""A seeded generator of broken and odd structure files, PDB and mmCIF."""

import random
import re

from md.damage_pdb import ATOMS, NUMBERS, PDB, RESIDUES, some


def _cif_value(rows, rng):
    """Some values of the atom table become others, or vanish, or come twice."""
    new = rng.choice([*NUMBERS, *RESIDUES, *ATOMS, ".", "?", "'", '"', "'a b'", "1.5(3)", "loop_", "#", ";", "data_y"])
    column = rng.randrange(26)
    for i in some(rows, rng):
        words = rows[i].split()
        if column < len(words):
            words[column : column + 1] = rng.choice([[new], [new], [], [new, new]])
        rows[i] = " ".join(words)
    return rows


def _cif_heading(rows, rng):
    places = [i for i, row in enumerate(rows) if row.startswith("_atom_site.")]
    if not places:
        return rows
    i, j = rng.choice(places), rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        del rows[i]
    elif kind == 1:
        rows.insert(j, rows[i])
    elif kind == 2:
        rows[i], rows[j] = rows[j], rows[i]
    elif kind == 3:
        rows[i] = rows[i].upper() if rng.random() < 0.5 else "_atom_site.other"
    else:
        rows[i] += rng.choice([" ", " x", "'", " #", "\n"])
    return rows


def _cif_inserted(rows, rng):
    new = rng.choice(
        ["loop_", "data_next", "save_x", ";", "; open", "'open", '"open', "#", "_cell.length_a 1", "stop_"]
    )
    rows.insert(rng.randrange(len(rows) + 1), rng.choice([new, "ATOM", "global_", "_atom_site.id 5", ";\n;", "\x0c"]))
    return rows


def _cif_pairs(rows, rng):
    """One atom written without a loop."""
    names = [row.strip() for row in rows if row.startswith("_atom_site.")]
    atoms = [row.split() for row in rows if row.startswith("ATOM")] or [[]]
    return ["data_x", *(f"{n} {v}" for n, v in zip(names, rng.choice(atoms), strict=False))]


def _cif_models(rows, rng):
    body = [row for row in rows if row.startswith("ATOM")]
    number = rng.choice(["2", "2", "x", "1", "."])
    return [*rows, *(re.sub(r"\S+\s*$", number, row) for row in body)]


CIF = {
    "value": _cif_value,
    "values": lambda rows, rng: _cif_value(_cif_value(rows, rng), rng),
    "heading": _cif_heading,
    "inserted": _cif_inserted,
    "pairs": _cif_pairs,
    "models": _cif_models,
    **{name: PDB[name] for name in ("dropped", "doubled", "swapped", "shuffled", "rows cut", "garbled", "tabs")},
}
CHANGES = {"pdb": PDB, "cif": CIF}
ENDS = ["\n", "\n", "\n", "\r\n", "\r", "\n\n", " \n", "\x0b", "\u2028", ""]
CODES = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp037"]


def damaged(text: str, kind: str, seed: int) -> bytes:
    """What becomes of a sound file of this kind (`pdb` or `cif`): one to three changes, then perhaps the bytes'."""
    rng, changes = random.Random(f"{kind} {seed}"), CHANGES[kind]
    names = list(changes)
    rows = text.splitlines()
    # the first change goes through all in turn, so that none is left to chance
    for name in [names[seed % len(names)], *rng.sample(names, rng.choice([0, 0, 0, 0, 1, 2]))]:
        rows = changes[name](rows, rng) or [""]
    end, code = (rng.choice(ENDS), rng.choice(CODES)) if rng.random() < 0.2 else ("\n", "utf-8")
    data = bytearray((end.join(rows) + end).encode(code, "replace"))
    for _ in range(rng.choice([0] * 8 + [1, 3])):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.06 else data)
