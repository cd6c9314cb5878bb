"""How a command is done: it is watched, and what there is to be said is said."""

from __future__ import annotations

import sys

from timewarp.settings import RunSettings
from timewarp.watch import watch


def done(work: str, settings: RunSettings) -> None:
    """Do it, and print what there is to be said at the end."""
    for line in watch(work, settings, say):
        print(line)


def say(line: str) -> None:
    """A line for a person, on stderr."""
    print(line, file=sys.stderr, flush=True)
