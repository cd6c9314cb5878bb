"""A command at work: a progress bar, an ear for Ctrl-C, and what is said at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from timewarp.interrupt import Interrupt
from timewarp.loading import loading
from timewarp.settings import RunSettings, Work
from timewarp.summary import summary

LINES = {"race": " left"}  # of work that takes hours: what its progress tells a log file, where there is no terminal


def watch(work: str, settings: RunSettings, say: Callable[[str], None]) -> list[str]:
    """Call the function `work` of the assembling module, with a progress bar and an ear for Ctrl-C.

    Args:
        work: a name of `timewarp.assemble`.
        settings: of it.
        say: tells a person a line meanwhile.

    Returns:
        what there is to be said at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    _readable(getattr(settings, "pdb", None))
    console = Console(stderr=True)
    quiet = not console.is_terminal or os.environ.get("RANK", "0") != "0"
    columns = (
        TextColumn(f"timewarp {work}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Interrupt(say) as stop, Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        with loading():
            from timewarp import assemble

        task = bar.add_task("starting", total=1.0)

        def progress(share: float, text: str) -> None:
            bar.update(task, completed=share, description=text)
            if quiet and work in LINES and LINES[work] in text:
                say(text)

        run: Work = getattr(assemble, work)
        report = run(settings, progress, stop)
    if os.environ.get("RANK", "0") != "0":
        return []
    stopped = ["stopped when asked, and saved; --resume continues"] if stop.asked else []
    return [*summary(report), *stopped, f"results in {settings.out}"]


def _readable(pdb: Path | None) -> None:
    """Refuse a structure that cannot be read before torch is loaded, which takes seconds."""
    if pdb is None:
        return
    from timewarp.md.faults import InputError
    from timewarp.md.read import read

    try:
        read(pdb)
    except InputError as error:
        raise InputError(f"{pdb}: {error}") from error
