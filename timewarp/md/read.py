"""A PDB or mmCIF file -> its atoms, as they stand in the file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from timewarp.md.faults import InputError
from timewarp.md.mmcif import read_mmcif
from timewarp.md.pdb import read_pdb
from timewarp.md.record import Contents

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
LARGEST = 16_000_000  # bytes; a peptide in water has a few million, and this many are read in seconds


def read(path: str | os.PathLike) -> Contents:
    """Read the first model of a file.

    Raises:
        InputError: if there is no such file, or it is not what its name says.
    """
    text = _text(path)
    contents = read_pdb(text) if str(path).lower().endswith((".pdb", ".ent")) else read_mmcif(text)
    if not contents.atoms:
        raise InputError("expected atoms, found no ATOM or HETATM records; give the file of a peptide")
    return contents


def _text(path) -> str:
    try:
        file = Path(path)
        if file.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"expected a file that ends in {', '.join(SUFFIXES)}, found {file.suffix or 'no suffix'}; "
                "convert it to PDB or mmCIF"
            )
        if file.is_dir():
            raise InputError("expected a file, found a directory; name the file in it")
        if not file.exists():
            raise InputError("expected a file, found none of this name; check the path")
        if not file.is_file():
            raise InputError("expected a regular file, found a device or a pipe; save the structure to a file")
        if file.stat().st_size > LARGEST:
            raise InputError(
                f"expected the file of a peptide, found {file.stat().st_size >> 20} MB; cut the peptide out"
            )
        data = file.read_bytes()
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a file that can be read, found: {reason}; check the path and its rights") from error
    if not data.strip():
        raise InputError("expected a structure, found an empty file; write the file again")
    if re.search(rb"[\x00-\x08\x0e-\x1f]", data):
        raise InputError("expected text, found binary data; give an uncompressed PDB or mmCIF file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # names of authors in old files
