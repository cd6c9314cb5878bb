"""Which directories a run may write to: one at a time, and none that holds what it did not write."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

HEADER = b"chain,step,potential_kj_per_mol,accepted\n"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class OutputError(Exception):
    """The run directory cannot be read or written; what had been saved is still there."""


class DirectoryRefused(OutputError):
    """The directory asked for cannot serve as it is; nothing in it was touched."""


def claim(path: Path, resume: bool) -> IO[bytes]:
    """Make the directory ours and return its log.csv, open, unbuffered and locked for as long as it stays open.

    The log is what makes a directory a run: it is made first, and the lock on it goes when its process dies.

    Raises:
        DirectoryRefused: if the directory is in use, holds other files, or holds a run and `resume` is not set.
        OSError: if it cannot be read or written.
    """
    if path.exists() and not path.is_dir():
        raise DirectoryRefused(f"{path} is a file; give a directory with --out")
    log = path / "log.csv"
    if path.exists() and not log.exists():
        _refuse_others(path)
    path.mkdir(parents=True, exist_ok=True)
    try:
        file = log.open("r+b" if log.exists() else "x+b", buffering=0)
    except FileExistsError:
        raise DirectoryRefused(_in_use(path)) from None
    try:
        _lock(path, file)
        start = file.read(len(HEADER))
        if not start:
            _refuse_others(path)
        if not HEADER.startswith(start):
            raise DirectoryRefused(f"{log} is not the log of a run; give a new directory with --out")
        if start and not resume:
            raise DirectoryRefused(f"{path} holds a run; continue it with --resume or give another --out")
    except BaseException:
        file.close()
        raise
    return file


def compare(path: Path, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise DirectoryRefused unless the run in `path` was started with what is asked for now."""
    for name in [*saved, *(n for n in asked if n not in saved)]:
        if (was := saved.get(name)) != (now := asked.get(name)):
            raise DirectoryRefused(
                f"{path} was started with {name} {was}, not {now}; resume with the same options or give another --out"
            )


def _refuse_others(path: Path) -> None:
    others = sorted(e.name for e in path.iterdir() if e.name != "log.csv" and not e.name.startswith("."))
    if others:
        raise DirectoryRefused(
            f"{path} is not empty and holds no run (there is {others[0]}); give a new directory with --out"
        )


def _lock(path: Path, file: IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DirectoryRefused(_in_use(path)) from None
    except OSError as error:  # some network file systems have no locks
        if error.errno not in _NO_LOCKS:
            raise


def _in_use(path: Path) -> str:
    return f"{path} is in use by another run; wait for it or give another --out"
