"""The commands that leave no run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def build(
    sequence: Annotated[str, typer.Argument(metavar="SEQUENCE", help="AVSA, or names: ACE-ALA-HIP-NME.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The PDB file to write.")],
) -> None:
    """Build a PDB file of a sequence."""
    from timewarp.md.system import prepare_sequence, write_pdb

    prepared = prepare_sequence(sequence)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_pdb(prepared.topology, prepared.positions, out)
    print(f"wrote {out}: {prepared.sequence}, {len(prepared.positions)} atoms")


def info() -> None:
    """Say which versions, platforms, checkpoints and example peptides there are."""
    from timewarp.inventory import inventory

    for name, value in inventory():
        print(f"{name:<12} {value}")
