"""What a peptide needs before methods are compared on it: its file, its reference, and the best platform for MD."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from timewarp.assemble.speedup.crossings import crossings_of
from timewarp.assemble.speedup.job import Job
from timewarp.assemble.speedup.record import Record
from timewarp.assemble.speedup.target import Target
from timewarp.assemble.yardsticks import QUICK, Recipe, Stopped, yardstick

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

FEW = 1000  # frames of a quick reference


@dataclass(frozen=True)
class Named:
    """A peptide of a benchmark: its name, its file, and what was read of it."""

    name: str
    pdb: Path
    prepared: Prepared

    @classmethod
    def of(cls, word: str, out: Path) -> Named:
        """From a file, or a sequence, whose structure is then written into `out`.

        Raises:
            InputError: if it can be neither read nor built.
        """
        from timewarp.md.system import prepare, prepare_sequence, write_pdb

        if Path(word).suffix or Path(word).is_file():
            return cls(Path(word).stem, Path(word).resolve(), prepare(word))
        prepared = prepare_sequence(word)
        pdb = (out / f"{prepared.sequence}.pdb").resolve()
        if not pdb.exists():
            write_pdb(prepared.topology, prepared.positions, pdb)
        return cls(prepared.sequence, pdb, prepare(pdb))


def recipe(frames: int, seconds: float) -> Recipe:
    """How a reference with so many frames a half is made, which takes what it has after so many seconds."""
    return replace(QUICK if frames <= FEW else Recipe(), frames=frames, seconds=seconds)


def refer(job: Job) -> Record:
    """See that all that a peptide is judged by is in the cache; the record says which platform is fastest here."""
    from timewarp.md.baseline import fastest_platform
    from timewarp.md.system import prepare

    prepared = prepare(job.pdb)
    _target(prepared, job, job.orphaned)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        platform = fastest_platform(prepared, job.temperature)
    notices = [str(warning.message) for warning in said]
    return Record.empty(0, len(prepared.positions), job.elapsed(), platform=platform, notices=notices)


def target_of(job: Job) -> Target:
    """What the methods on the peptide of a job are judged against, from the cache, or made now where there is none."""
    from timewarp.md.system import prepare

    return _target(prepare(job.pdb), job, lambda: False)


def _target(prepared: Prepared, job: Job, gone: Callable[[], bool]) -> Target:
    import mdtraj

    how = recipe(job.frames, job.patience)
    reference = yardstick(prepared, job.temperature, how, lambda *_: None, gone, job.device)
    target = Target.of(mdtraj.Topology.from_openmm(prepared.topology), reference, how.every)
    if not job.dynamics:
        return target
    common = prepared, job.temperature, reference, target
    return replace(target, dynamics={m: crossings_of(*common, m, job.dynamics, gone) for m in job.protocols})


__all__ = ["Named", "Stopped", "recipe", "refer", "target_of"]
