"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timewarp.settings import Device

Pdb = Annotated[Path, typer.Argument(metavar="PDB", help="A PDB or mmCIF file of a peptide of 1 to 10 residues.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Directory for the results; a new one, or see --resume.")]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers.")]
On = Annotated[Device, typer.Option(help="Where to compute; auto is CUDA where there is one.")]
Seconds = Annotated[float | None, typer.Option(metavar="S", help="Wall-clock limit; 60 where --steps is absent.")]
Limit = Annotated[float | None, typer.Option(metavar="S", help="Wall-clock limit.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in DIR, if there is one.")]
Tests = Annotated[int | None, typer.Option(metavar="N", help="Tested proposals a chain, in all.")]
Chains = Annotated[int, typer.Option(metavar="C", help="Chains side by side.")]
Kelvin = Annotated[float, typer.Option(metavar="K", help="Temperature in kelvin.")]
Patience = Annotated[
    float, typer.Option(metavar="S", help="After which a reference is what it is; the rest is in its errors.")
]
Checkpoint = Annotated[str, typer.Option(metavar="NAME", help="A checkpoint of the package, or a path to a .json.")]


def limit(steps: int | None, seconds: float | None, otherwise: float = 60.0) -> float | None:
    """The wall-clock limit of a run; `otherwise` where neither steps nor seconds are asked for."""
    return otherwise if steps is None and seconds is None else seconds
