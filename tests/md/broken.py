"""Files that cannot be sampled, each with what its one line has to say."""

import io
import re
from pathlib import Path

from openmm import app, unit

from timewarp.md.system import Prepared, prepare_sequence, write_pdb


def sound(folder: Path) -> dict[str, str]:
    """The text of sound files, by name."""
    texts = {}
    for sequence in ("AA", "ACE-CYS-NME", "ACE-ASP-NME"):
        made = prepare_sequence(sequence)
        write_pdb(made.topology, made.positions, folder / "x.pdb")
        texts[sequence] = (folder / "x.pdb").read_text()
    return texts | {"cif": mmcif(prepare_sequence("AA"))}


def mmcif(made: Prepared) -> str:
    """A peptide as OpenMM writes it in mmCIF, but for the comment that holds the date."""
    text = io.StringIO()
    app.PDBxFile.writeFile(made.topology, made.positions * unit.nanometer, text, keepIds=True)
    return "".join(line for line in text.getvalue().splitlines(True) if "Created with" not in line)


def lines(text):
    return text.splitlines()


def place(text, name, number):
    return next(i for i, x in enumerate(lines(text)) if x[12:16].strip() == name and x[22:26].strip() == str(number))


def edit(text, name, number, change):
    """The text with one atom's line changed to what `change` makes of it (a line, several, or None)."""
    rows = lines(text)
    at = place(text, name, number)
    new = change(rows[at])
    rows[at : at + 1] = [] if new is None else [new] if isinstance(new, str) else new
    return "\n".join(rows) + "\n"


def columns(start, stop, new):
    return lambda line: line[:start] + new + line[stop:]


def shifted(text, wanted, by):
    """The text with the atoms that `wanted` accepts moved along x, in angstrom."""
    rows = [
        f"{x[:30]}{float(x[30:38]) + by:8.3f}{x[38:]}" if x.startswith(("ATOM", "HETATM")) and wanted(x) else x
        for x in lines(text)
    ]
    return "\n".join(rows) + "\n"


def number_is(number):
    return lambda line: line[22:26].strip() == str(number)


def water(text):
    return "HETATM    1  O   HOH W   1      30.000  30.000  30.000  1.00  0.00           O\nEND\n"


def alternates(text, first, second, residue="ALA"):
    """CB of the second alanine at two places with these occupancies."""
    one, two = f"{first:6.2f}", f"{second:6.2f}"
    return edit(
        text,
        "CB",
        2,
        lambda x: [f"{x[:16]}A{x[17:54]}{one}{x[60:]}", f"{x[:16]}B{residue}{x[20:54]}{two}{x[60:]}"],
    )


def copies(text, count):
    """The first residue `count` times over."""
    rows = [x for x in lines(text) if x.startswith("ATOM") and number_is(1)(x)]
    return "\n".join(columns(22, 26, f"{n + 1:4d}")(x) for n in range(count) for x in rows) + "\nEND\n"


def second_chain(text):
    rows = [x for x in lines(text) if x.startswith("ATOM")]
    moved = lines(shifted("\n".join(rows), lambda x: True, 30.0))
    return "\n".join([*rows, "TER", *(columns(21, 22, "B")(x) for x in moved), "END"]) + "\n"


def unchained(text):
    """The same without chain names and with a TER between."""
    return second_chain(text).replace(" ALA A", " ALA  ").replace(" ALA B", " ALA  ")


FAULTS = {  # name: (what is done to which text, what the line says)
    "no protein": ("AA", lambda t: "HEADER    NOTHING\nEND\n", "expected atoms, found no ATOM"),
    "only water": ("AA", water, "found only water or ions"),
    "empty": ("AA", lambda t: "", "found an empty file"),
    "blank": ("AA", lambda t: "\n \n\n", "found an empty file"),
    "binary": ("AA", lambda t: b"\x7fELF\x00\x01\x02" * 50, "found binary data"),
    "unknown residue": ("AA", lambda t: t.replace("ALA A   2", "XYZ A   2"), "unknown residue or ligand XYZ"),
    "modified residue": ("AA", lambda t: t.replace("ALA A   2", "MSE A   2"), "unknown residue or ligand MSE"),
    "DNA": ("AA", lambda t: t.replace("ALA A", " DA A"), "nucleic acid DA"),
    "chain break": ("AA", lambda t: shifted(t, number_is(2), 8.0), r"ALA 1 and ALA 2 \(chain break\)"),
    "several chains": ("AA", second_chain, r"expected one chain, found 2 \(A, B\)"),
    "several chains without names": ("AA", unchained, "expected one chain, found several with TER"),
    "alternates as likely": ("AA", lambda t: alternates(t, 0.5, 0.5), "both at 0.50"),
    "alternates of two residues": ("AA", lambda t: alternates(t, 0.6, 0.4, "SER"), "found ALA and SER"),
    "nan": ("AA", lambda t: edit(t, "CA", 1, columns(30, 38, "     nan")), "expected finite coordinates, found nan"),
    "infinite": ("AA", lambda t: edit(t, "CB", 2, columns(38, 46, "    -inf")), "expected finite coordinates"),
    "overflow": ("AA", lambda t: edit(t, "CB", 2, columns(38, 46, "   1e999")), "expected finite coordinates"),
    "not a number": ("AA", lambda t: edit(t, "CA", 1, columns(30, 38, "  ab.cde")), "expected a number for coord"),
    "asterisks": ("AA", lambda t: edit(t, "CA", 1, columns(30, 38, "********")), "expected a number for coord"),
    "bad occupancy": ("AA", lambda t: edit(t, "CA", 1, columns(54, 60, "  x.00")), "number for an occupancy"),
    "line cut short": ("AA", lambda t: t[: t.index(" CA  ALA A   2") + 20], "it is truncated|truncated or not in PDB"),
    "file cut between lines": ("AA", lambda t: "\n".join(lines(t)[: place(t, "CB", 2)]), "found no .*CB"),
    "cut after a residue": (
        "AA",
        lambda t: "SEQRES   1 A    3  ALA ALA ALA\n" + "".join(x + "\n" for x in lines(t) if x.startswith("ATOM")),
        "found 2 of 3 residues.*and no END",
    ),
    "too many residues": ("AA", lambda t: copies(t, 11), "1 to 10 amino acids, found 11"),
    "a protein": ("AA", lambda t: copies(t, 300), "1 to 10 amino acids, found 300"),
    "no backbone nitrogen": ("AA", lambda t: edit(t, "N", 2, lambda x: None), "backbone of ALA 2, found no N"),
    "no carbonyl oxygen": ("AA", lambda t: edit(t, "O", 1, lambda x: None), "backbone of ALA 1, found no O"),
    "only alpha carbons": (
        "AA",
        lambda t: "".join(x + "\n" for x in lines(t) if x[12:16] == " CA ") + "END\n",
        "found no N, C, O",
    ),
    "atoms on top of each other": (
        "AA",
        lambda t: edit(t, "CB", 2, columns(30, 54, lines(t)[place(t, "C", 2)][30:54])),
        "bond between|do not overlap",
    ),
    "all at the origin": (
        "AA",
        lambda t: re.sub(r"(?m)^(ATOM.{26}).{24}", r"\g<1>   0.000   0.000   0.000", t),
        "found them 0 nm apart",
    ),
    "hydrogens on top of each other": (
        "AA",
        lambda t: edit(t, "HB1", 2, columns(30, 54, lines(t)[place(t, "HB2", 2)][30:54])),
        "do not overlap",
    ),
    "twice the same atom": ("AA", lambda t: edit(t, "CB", 1, lambda x: [x, x]), "found CB of ALA 1 twice"),
    "nanometres": (
        "AA",
        lambda t: re.sub(
            r"(?m)^(ATOM.{26})(.{8})(.{8})(.{8})",
            lambda m: m[1] + "".join(f"{float(m[i]) / 10:8.3f}" for i in (2, 3, 4)),
            t,
        ),
        r"in angstrom",
    ),
    "bad element": ("AA", lambda t: edit(t, "CB", 1, columns(76, 78, "ZN")), "element C for CB of ALA 1, found ZN"),
    "foreign atom": (
        "AA",
        lambda t: edit(t, "CB", 2, lambda x: [x, columns(12, 16, " P  ")(columns(76, 78, " P")(x))]),
        "expected only the atoms of ALA, found P",
    ),
    "torn side chain": ("AA", lambda t: edit(t, "CB", 2, columns(30, 38, "  50.000")), "bond between .*C[AB]"),
    "OXT inside": (
        "AA",
        lambda t: edit(t, "CB", 1, lambda x: [x, columns(12, 16, " OXT")(columns(76, 78, " O")(x))]),
        "expected OXT at the end of the chain, found it in ALA 1",
    ),
    "one amino acid without caps": (
        "AA",
        lambda t: "".join(x + "\n" for x in lines(t) if x.startswith("ATOM") and number_is(1)(x)) + "END\n",
        "alone; cap it, for example ACE-ALA-NME",
    ),
    "caps alone": (
        "ACE-CYS-NME",
        lambda t: "".join(x + "\n" for x in lines(t) if "CYS" not in x and x.startswith("HET")) + "END\n",
        "found none",
    ),
    "CYX alone": ("ACE-CYS-NME", lambda t: t.replace("CYS", "CYX"), "two CYX .* found CYX 2 alone; name it CYS"),
    "two protons on an acid": (
        "ACE-ASP-NME",
        lambda t: edit(
            edit(t, "OD1", 2, lambda x: [x, beside(x, "HD1", 0.98)]), "OD2", 2, lambda x: [x, beside(x, "HD2", 0.98)]
        ),
        "one proton at most on the acid of ASP 2, found two",
    ),
    "mmCIF in a PDB file": ("cif", lambda t: t, "found no ATOM|truncated or not in PDB columns|expected a number"),
}
CIF_FAULTS = {
    "no atoms": (lambda t: "data_x\n_entry.id x\n", "expected atoms, found no ATOM"),
    "row cut short": (lambda t: t[: t.rindex("ATOM") + 30], "truncated or damaged"),
    "no coordinates": (lambda t: t.replace("_atom_site.Cartn_y", "_atom_site.other"), "column _atom_site.Cartn_y"),
    "unknown coordinate": (
        lambda t: re.sub(r"(?m)^(ATOM\s+5 .*?) -?\d+\.\d+ ", r"\1 ? ", t),
        "expected a number for coord",
    ),
    "open text": (lambda t: "data_x\n_x.y\n;text\n" + t, "expected the end of a text field"),
    "unknown residue": (lambda t: t.replace("ALA", "QQQ"), "unknown residue or ligand QQQ"),
    "PDB in an mmCIF file": (lambda t: "ATOM      1  N   ALA A   1       0.000   0.000   0.000\n", "found no ATOM"),
}


def beside(line, name, by):
    """A hydrogen `by` angstrom from this atom, away from the centre."""
    return f"{line[:12]} {name}{line[16:30]}{float(line[30:38]) + by:8.3f}{line[38:76]} H"
