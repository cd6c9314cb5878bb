"""The energy log of a run: `chain,step,potential_kj_per_mol,accepted`, one line a saved frame."""

from __future__ import annotations

import csv
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ChainLog:
    """The lines of one chain: steps, potential in kJ/mol, and accepted (1, 0; a count where frames were thinned)."""

    chain: int
    steps: Float[np.ndarray, " frames"]
    potential: Float[np.ndarray, " frames"]
    accepted: Float[np.ndarray, " frames"]

    def acceptance(self) -> Float[np.ndarray, " frames"]:
        """Running share of accepted moves; NaN where nothing is known."""
        known = np.isfinite(self.accepted)
        flags = np.where(known, self.accepted, 0.0)
        tested = np.cumsum(known) if flags.max(initial=0.0) <= 1 else self.steps
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.cumsum(flags) / tested


def read_log(path: Path, every: int = 1) -> list[ChainLog]:
    """All chains of a log in order; a line that was cut short by an interruption is left out.

    Of `every` lines of a chain the first is given, with the mean of `accepted` over all of them.

    Raises:
        ValueError: if the first line does not name the columns.
    """
    rows: dict[int, array[float]] = {}
    lines: dict[int, int] = {}
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        wanted = {"chain", "step", "potential_kj_per_mol"}
        if not wanted <= set(reader.fieldnames or ()):
            raise ValueError(f"expected the columns {sorted(wanted)} in {path.name}, got {reader.fieldnames}")
        for line in reader:
            try:
                chain = int(line["chain"])
                row = float(line["step"]), float(line["potential_kj_per_mol"]), _flag(line.get("accepted"))
            except (TypeError, ValueError):
                continue
            kept, after = rows.setdefault(chain, array("d")), lines.get(chain, 0) % every
            if not after:
                kept.extend(row)
            else:
                kept[-1] += (row[-1] - kept[-1]) / (after + 1)
            lines[chain] = lines.get(chain, 0) + 1
    return [ChainLog(chain, *np.array(values).reshape(-1, 3).T) for chain, values in sorted(rows.items())]


def _flag(text):
    words = {"true": 1.0, "false": 0.0, "": float("nan")}
    text = (text or "").strip().lower()
    return words[text] if text in words else float(text)
