"""The states of a run, one row each: how often, how probable, when first, and what they look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from timewarp.analysis import populations
from timewarp.assemble.judging import Judgement
from timewarp.atomic import write_atomically
from timewarp.dcd import Trajectory
from timewarp.mcmc.ess import bulk_ess
from timewarp.output import RunDirectory

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

LISTED = 40  # states, of the largest share


def list_states(
    directory: RunDirectory,
    prepared: Prepared,
    judgement: Judgement,
    temperature: float,
    *,
    biased: bool,
    setup: float,
    seconds: float,
) -> list[dict[str, Any]]:
    """Write `state-01-NAME.pdb` for each state, its frame of lowest energy, and say what is known of it.

    Args:
        directory: of the run.
        prepared: the molecule.
        judgement: on its frames.
        temperature: K.
        biased: so that shares are no populations, and have neither errors nor free energies.
        setup: seconds before the first move.
        seconds: of the whole run; moves are taken to need the same time each.

    Returns:
        rows with `state`, `share` and its `error`, `free_energy` (kJ/mol, against the largest share) and
        `free_energy_error`, `chains` (that were in it), `first_step` and `first_seconds` (when it was found),
        `potential_kj_per_mol` (of the frame) and `file`; the largest share first.
    """
    from timewarp.md.pdb import pdb_text

    for stale in directory.path.glob("state-*.pdb"):
        stale.unlink()
    words, energy, steps = judgement.words, judgement.potential, judgement.steps
    if not words.size:
        return []
    found = []
    for rank, row in enumerate(populations(words, temperature, bulk_ess)[:LISTED], 1):
        inside = words == row.name
        chain, frame = np.unravel_index(np.where(inside, energy, np.inf).argmin(), words.shape)
        file = f"state-{rank:02d}-{row.name or 'all'}.pdb"
        trajectory = Trajectory(directory.path / f"chain-{chain:03d}.dcd", len(prepared.positions))
        at = int(frame) * judgement.every
        text = pdb_text(prepared.topology, trajectory.read(at, at + 1)[0])
        write_atomically(directory.path / file, text.encode())
        first = float(steps[inside.any(0).argmax()])
        known: dict[str, Any] = {} if biased else row._asdict()
        found.append(
            {
                "state": row.name,
                "share": row.share,
                "error": known.get("error"),
                "free_energy": known.get("free_energy"),
                "free_energy_error": known.get("free_energy_error"),
                "chains": row.chains,
                "first_step": int(first),
                "first_seconds": setup + (seconds - setup) * first / float(steps[-1]),
                "potential_kj_per_mol": float(energy[chain, frame]),
                "file": file,
            }
        )
    return found
