"""The atom records of a file, whatever its format."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np

from timewarp.md.faults import InputError

LONGEST = 40  # characters of a number
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Atom:
    """One atom record; `position` in nm, `part` counts the TER records before it, `where` is for messages."""

    name: str
    altloc: str
    residue: str
    chain: str
    number: str
    position: np.ndarray
    occupancy: float
    element: str
    part: int
    where: str


@dataclass
class Contents:
    """What a file holds of its first model.

    Attributes:
        atoms: in file order.
        notices: what was left out.
        ended: whether something says that no atoms are missing at the end.
        listed: residues a chain should have, where the file says so.
    """

    atoms: list[Atom] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    ended: bool = False
    listed: dict[str, int] = field(default_factory=dict)


def number(text: str, what: str, where: str) -> float:
    """A finite number of a record.

    Raises:
        InputError: if it is not one.
    """
    text = text.strip()
    known = text.lower().lstrip("+-") in ("nan", "inf", "infinity")
    if not known and (len(text) > LONGEST or not _NUMBER.fullmatch(text)):
        raise InputError(f"expected a number for {what}, found {text[:20]!r} in {where}; write the file again")
    if known or not math.isfinite(float(text)):
        raise InputError(f"expected finite {what}, found {text[:20]} in {where}; remove or correct that atom")
    return float(text)
