"""Whether a run's energy is compiled: decided once, before its first step, and kept with it.

Compiled, a proposal takes about half the time. Compiling takes more than a minute, once for a machine, and loading
what was compiled nothing; so a run takes what is there, a long one waits for it, and one of a minute leaves a process
behind it that makes it for the next. What a run decided it keeps when it is resumed: the two ways round differently.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import torch

from timewarp import ahead
from timewarp.energy import Potential, compiled
from timewarp.flow import pair_curves
from timewarp.kernel import Energy
from timewarp.settings import Progress, Stop

LOADED_STEPS, LOADED_SECONDS = 1000, 5.0  # shorter runs are left alone
WORTH_STEPS, WORTH_SECONDS = 3000, 45.0  # shorter ones take what is there, and have nothing made
LONG_STEPS, LONG_SECONDS = 50_000, 600.0  # longer ones wait for the compiler
PREPARE = """
import json, sys
from timewarp.assemble.fusing import made
made(json.loads(sys.argv[1]))
"""
NOTICE = "the energy is being compiled in the background, once for this machine; later runs are about twice as fast"


def fused(
    potential: Energy, steps: int | None, seconds: float | None, progress: Progress, stop: Stop
) -> tuple[bool | None, tuple[str, ...]]:
    """(Whether a run with these limits is compiled from its first step on, notices).

    None if `stop` ends the wait for the compiler, which goes on by itself: a run that is resumed decides then.
    """
    if not isinstance(potential, Potential):
        return False, ()
    if not _reaches(steps, seconds, LOADED_STEPS, LOADED_SECONDS):
        return False, ()
    if ready(potential):
        return True, ()
    if not _reaches(steps, seconds, WORTH_STEPS, WORTH_SECONDS):
        return False, ()
    try:
        ahead.compiler()
    except RuntimeError:
        return False, ()
    waits = _reaches(steps, seconds, LONG_STEPS, LONG_SECONDS)
    process = _prepare(potential, behind=not waits)
    if waits:
        progress(0.0, "compiling the energy, once for this machine")
    while waits and process.poll() is None:
        if stop():
            return None, (NOTICE,)
        time.sleep(0.1)
    return (True, ()) if waits else (False, (NOTICE,))


def ready(potential: Potential) -> bool:
    """Whether all that a run of this potential compiles is only to be loaded."""
    return compiled.ready(potential.tables) and pair_curves.ready(potential.dtype)


def made(kind: compiled.Kind) -> None:
    """Compile what potentials of one kind need."""
    compiled.make(kind)
    pair_curves.make(getattr(torch, kind[0]))


def _prepare(potential: Potential, behind: bool) -> subprocess.Popen[bytes]:
    """A process that compiles it, which no signal to this one reaches; `behind` the other work of the machine."""
    command = [sys.executable, "-c", PREPARE, json.dumps(compiled.needed(potential.tables))]
    nice = ["nice"] if behind and shutil.which("nice") else []
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*nice, *command], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _reaches(steps: int | None, seconds: float | None, many: int, long: float) -> bool:
    return (steps is None or steps >= many) and (seconds is None or seconds >= long)
