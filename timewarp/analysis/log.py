"""The energy log of a run: `chain,step,potential_kj_per_mol,accepted`, one line a saved frame."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ChainLog:
    """The lines of one chain: steps, potential in kJ/mol, and accepted (1, 0; a count where frames are thinned)."""

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


def read_log(path: Path) -> list[ChainLog]:
    """All chains of a log in order; a line that was cut short by an interruption is left out.

    Raises:
        ValueError: if the first line does not name the columns.
    """
    rows: dict[int, list[tuple[float, float, float]]] = {}
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        wanted = {"chain", "step", "potential_kj_per_mol"}
        if not wanted <= set(reader.fieldnames or ()):
            raise ValueError(f"expected the columns {sorted(wanted)} in {path.name}, got {reader.fieldnames}")
        for line in reader:
            try:
                row = float(line["step"]), float(line["potential_kj_per_mol"]), _flag(line.get("accepted"))
                rows.setdefault(int(line["chain"]), []).append(row)
            except (TypeError, ValueError):
                continue
    return [ChainLog(chain, *np.array(values).T) for chain, values in sorted(rows.items())]


def _flag(text):
    words = {"true": 1.0, "false": 0.0, "": float("nan")}
    text = (text or "").strip().lower()
    return words[text] if text in words else float(text)
