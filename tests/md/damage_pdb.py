"""Changes to the lines of a sound PDB file: what programs, editors, disks and people do to it."""

import random
import re
from collections.abc import Callable

Rows = list[str]

NUMBERS = ["nan", "inf", "-inf", "1e999", "-1e30", "9999.999", "-999.999", "0.000", "", "*" * 8, "1,234", "0x1F", "١.٢"]
RESIDUES = ["ALA", "GLY", "PRO", "CYS", "HIS", "TRP", "ACE", "NME", "NH2", "CYX", "HIP", "ASH", "LYN"]
RESIDUES += ["MSE", "HOH", "ZN", "DA", "UNK", "al", ""]
ATOMS = ["N", "CA", "C", "O", "CB", "CG", "SG", "OXT", "H", "HA", "1HB", "HXT", "CD1", "H1", "D"]
ATOMS += ["C1'", "O5*", 'N"', "X", "HHHH", ""]
ELEMENTS = ["H", "C", "N", "O", "S", "ZN", "X", "D", "1", "C1+", "N1-", "*", ""]
CHAINS = [*"AB1a- ", "?"]


def some(rows: Rows, rng: random.Random, share: float = 0.15) -> list[int]:
    """Places of atom records, at least one: a few or, at times, all."""
    places = [i for i, row in enumerate(rows) if row.startswith(("ATOM", "HETATM"))]
    if not places:
        return [0] if rows else []
    if rng.random() < 0.2:
        return places
    return [i for i in places if rng.random() < share] or [rng.choice(places)]


def _field(start: int, stop: int, values: list[str]) -> Callable[[Rows, random.Random], Rows]:
    """Some records get another value in these columns of a PDB file, the same one or each its own."""

    def change(rows: Rows, rng: random.Random) -> Rows:
        one = rng.choice(values) if rng.random() < 0.7 else None
        for i in some(rows, rng):
            value = rng.choice(values) if one is None else one
            rows[i] = f"{rows[i][:start]:<{start}}" + value.rjust(stop - start)[: stop - start] + rows[i][stop:]
        return rows

    return change


def _placed(row: str, change: Callable[[list[float]], list[float]]) -> str:
    """The record at other coordinates, where it has any."""
    try:
        x = change([float(row[k : k + 8]) for k in (30, 38, 46)])
    except ValueError:
        return row
    return row[:30] + "".join(f"{v:8.3f}"[:8] for v in x) + row[54:]


def _moved(change: Callable[[list[float], random.Random], list[float]]) -> Callable[[Rows, random.Random], Rows]:
    """Some records of a PDB file get other coordinates."""

    def apply(rows: Rows, rng: random.Random) -> Rows:
        for i in some(rows, rng, 0.3):
            rows[i] = _placed(rows[i], lambda x: change(x, rng))
        return rows

    return apply


def _dropped(rows, rng):
    gone = set(some(rows, rng, rng.choice([0.05, 0.3, 0.6])))
    return [row for i, row in enumerate(rows) if i not in gone] if len(gone) < len(rows) / 2 else rows[len(rows) // 2 :]


def _doubled(rows, rng):
    i = rng.choice(some(rows, rng))
    return rows[:i] + [rows[i]] * rng.randint(2, 3) + rows[i + 1 :]


def _swapped(rows, rng):
    for _ in range(rng.randint(1, 6)):
        i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
        rows[i], rows[j] = rows[j], rows[i]
    return rows


def _shuffled(rows, rng):
    at = rng.randrange(len(rows))
    part = rows[at : at + rng.randint(2, 40)]
    rng.shuffle(part)
    return rows[:at] + part + rows[at + len(part) :]


def _cut_rows(rows, rng):
    for i in some(rows, rng):
        rows[i] = rows[i][: rng.randrange(len(rows[i]) + 1)]
    return rows


def _shifted(rows, rng):
    for i in some(rows, rng):
        at = rng.randrange(len(rows[i]) + 1)
        by = rng.randint(1, 3)
        rows[i] = rows[i][:at] + " " * by + rows[i][at:] if rng.random() < 0.5 else rows[i][:at] + rows[i][at + by :]
    return rows


def _garbled(rows, rng):
    for i in some(rows, rng):
        if rows[i]:
            at = rng.randrange(len(rows[i]))
            rows[i] = rows[i][:at] + chr(rng.randrange(32, 127)) + rows[i][at + 1 :]
    return rows


def _tabbed(rows, rng):
    return [re.sub(r" {2,}", "\t", row) if rng.random() < 0.5 else row.replace("  ", "\t") for row in rows]


def _alternates(rows, rng):
    shares, names = rng.choice([(0.5, 0.5), (0.7, 0.3), (0.0, 0.0), (1.0, 1.0)]), rng.choice(["AB", "12", "BA", "aA"])
    chosen = set(some(rows, rng))
    found: Rows = []
    for i, row in enumerate(rows):
        pair = [f"{row[:16]}{n}{row[17:54]}{x:6.2f}{row[60:]}" for n, x in zip(names, shares, strict=True)]
        found += pair if i in chosen else [row]
    return found


def _models(rows, rng):
    body = [row for row in rows if row.startswith(("ATOM", "HETATM", "TER"))]
    other = _dropped(list(body), rng) if rng.random() < 0.5 else body
    close = ["ENDMDL"] if rng.random() < 0.7 else []
    return ["MODEL        1", *body, *close, f"MODEL        {rng.choice('21 ')}", *other, *close, "END"]


def _inserted(rows, rng):
    new = rng.choice(
        ["TER", "END", "", "REMARK 465 MISSING", "ANISOU", "ATOM", "HETATM", "CONECT    1    2 9999", "\x0c"]
    )
    new = rng.choice([new, "SEQRES   1 A    5  ALA ALA GLY SER VAL", "MODEL", "ENDMDL", "DBREF", "TER  TER"])
    for _ in range(rng.randint(1, 3)):
        rows.insert(rng.randrange(len(rows) + 1), new)
    return rows


def _solvated(rows, rng):
    name, atom = rng.choice([("HOH", "O"), ("NA", "NA"), ("LIG", "C1"), ("SO4", "S"), ("NH4", "N")])
    record = f"HETATM 9000 {atom:^4} {name:>3} {rng.choice('AW ')}{rng.randint(1, 900):4d}    "
    record += "".join(f"{rng.uniform(-20, 20):8.3f}" for _ in range(3)) + "  1.00  0.00          " + atom[:1].rjust(2)
    rows.insert(rng.randrange(len(rows) + 1), record)
    return rows


def _as_hetero(rows, rng):
    for i in some(rows, rng):
        rows[i] = re.sub(r"^ATOM  ", "HETATM", rows[i])
    return rows


def _heavy_only(rows, rng):
    return [row for row in rows if not row.startswith("ATOM") or row.rstrip()[-1:] not in "HD"]


def _second_chain(rows, rng):
    body = [f"{row[:21]}{rng.choice('AB')}{row[22:]}" for row in rows if row.startswith(("ATOM", "HETATM"))]
    return [*rows[:-1], *body, "END"]


def _renumbered(rows, rng):
    for i in some(rows, rng, 0.4):
        number = rng.choice(["   1", "  -5", "9999", "****", "A000", " 1A ", "    ", "  07"])
        rows[i] = f"{rows[i][:22]}{number}{rng.choice(' AB')}{rows[i][27:]}"
    return rows


def _side_chains_lost(rows, rng):
    kept = ("N", "CA", "C", "O", "CH3")
    return [row for row in rows if row[12:16].strip() in kept or not row.startswith("ATOM") or rng.random() < 0.6]


def _hydrogens_lost(rows, rng):
    return [row for row in rows if row.rstrip()[-1:] != "H" or rng.random() < 0.7]


def _noisy(rows, rng, which="HCNOS", spread=(0.05, 0.1, 0.2, 0.4)):
    """Every atom of these elements is moved a little, so that the files pass for structures."""
    width = rng.choice(spread)
    for i, row in enumerate(rows):
        if row.startswith(("ATOM", "HETATM")) and row.rstrip()[-1:] in which:
            rows[i] = _placed(row, lambda x: [v + rng.gauss(0, width) for v in x])
    return rows


def _one_moved(rows, rng):
    i, k, by = rng.choice(some(rows, rng)), rng.randrange(3), rng.choice([-1, 1]) * rng.uniform(0.2, 0.9)
    rows[i] = _placed(rows[i], lambda x: [v + by * (j == k) for j, v in enumerate(x)])
    return rows


def _mistaken(rows, rng):
    """One residue under the name of another that is much like it."""
    alike = {"HIS": ["HIP", "HID", "PHE"], "CYS": ["SER", "CYX", "CYM"], "ASP": ["ASN", "ASH"], "GLN": ["GLU", "GLH"]}
    alike |= {"THR": ["VAL", "SER"], "LYS": ["LYN", "ARG"], "ALA": ["GLY", "SER", "LEU"], "LEU": ["ILE", "ASN"]}
    number = rows[rng.choice(some(rows, rng))][22:26]
    return [
        row[:17] + rng.choice(alike.get(row[17:20], ["VAL", "TRP"])[:1]) + row[20:] if row[22:26] == number else row
        for row in rows
    ]


PDB = {
    "side chains lost": _side_chains_lost,
    "hydrogens lost": _hydrogens_lost,
    "noisy": _noisy,
    "noisy hydrogens": lambda rows, rng: _noisy(rows, rng, "H", (0.2, 0.4, 0.8, 2.0)),
    "one moved": _one_moved,
    "mistaken": _mistaken,
    "flat": lambda rows, rng: [f"{r[:46]}   0.000{r[54:]}" if r.startswith("ATOM") else r for r in rows],
    "dropped": _dropped,
    "doubled": _doubled,
    "swapped": _swapped,
    "shuffled": _shuffled,
    "rows cut": _cut_rows,
    "shifted": _shifted,
    "garbled": _garbled,
    "tabs": _tabbed,
    "alternates": _alternates,
    "models": _models,
    "inserted": _inserted,
    "solvated": _solvated,
    "HETATM": _as_hetero,
    "heavy only": _heavy_only,
    "second chain": _second_chain,
    "renumbered": _renumbered,
    "coordinates": _field(30, 38, NUMBERS),
    "occupancies": _field(54, 60, [*NUMBERS, "0.00", "-1.00", "0.50"]),
    "atom names": _field(12, 16, ATOMS),
    "residue names": _field(17, 20, RESIDUES),
    "elements": _field(76, 78, ELEMENTS),
    "chains": _field(21, 22, CHAINS),
    "insertion codes": _field(26, 27, ["A", "B", "1", "?"]),
    "alternate marks": _field(16, 17, ["A", "B", "1", "?"]),
    "noise": _moved(lambda x, rng: [v + rng.gauss(0, rng.choice([0.02, 0.2, 1.0])) for v in x]),
    "hydrogens moved": lambda rows, rng: [
        f"{row[:30]}{rng.uniform(-3, 3):8.3f}{row[38:]}" if row.rstrip()[-1:] == "H" and rng.random() < 0.3 else row
        for row in rows
    ],
    "rounded": _moved(lambda x, rng: [round(v, 1) for v in x]),
    "mirrored": lambda rows, rng: _moved(lambda x, _: [-x[0], x[1], x[2]])(rows, random.Random(1)),
    "scaled": _moved(lambda x, rng: [v * 1.05 for v in x]),
    "far away": _moved(lambda x, rng: [v + 9000 for v in x]),
    "onto another": _moved(lambda x, rng: [0.5, 0.5, round(rng.uniform(0, 1), 1)]),
    "axes swapped": _moved(lambda x, rng: [x[1], x[0], x[2]]),
}
