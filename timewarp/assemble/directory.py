"""A directory that one training run, or one making of data, writes to at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from timewarp.claim import DirectoryRefused


@contextmanager
def claimed(out: Path, marks: Sequence[str], resume: bool) -> Iterator[None]:
    """Hold `out`, made if need be, against other runs.

    Args:
        out: the directory.
        marks: patterns of the files that say that such a run was there before.
        resume: whether such a run may be continued.

    Raises:
        DirectoryRefused: if it is in use, is a file, holds other files, or holds a run that is not to be continued.
    """
    if out.exists() and not out.is_dir():
        raise DirectoryRefused(f"{out} is a file; give a directory with --out")
    there = sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) if out.exists() else []
    ours = any(any(out.glob(mark)) for mark in marks) if there else False
    if there and not ours:
        raise DirectoryRefused(
            f"{out} is not empty and holds no run (there is {there[0]}); give a new directory with --out"
        )
    if ours and not resume:
        raise DirectoryRefused(f"{out} holds a run; continue it with --resume or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryRefused(f"{out} is in use by another run; wait for it or give another --out") from None
        yield
