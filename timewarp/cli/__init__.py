"""The command `timewarp`: options in, one call, exit status out (0 done, 1 failed, 2 bad input).

A command turns its options into settings and hands them over with a progress bar and a way to be stopped.
Everything heavy is imported inside a command.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings

import typer

from timewarp.cli.chains import adapt, explore, md, sample
from timewarp.cli.ending import say
from timewarp.cli.measuring import bench, evaluate
from timewarp.cli.plain import build, info
from timewarp.cli.training import data, train

COMMANDS = (build, sample, adapt, explore, evaluate, md, data, train, bench, info)

app = typer.Typer(
    help="Enhanced sampling of peptides by a transferable normalizing flow, exact for the OpenMM potential.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """The entry point: runs a command and ends the process with its status."""
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: list[str]) -> int:
    """Run a command and return its status; an error is one line on stderr (with TIMEWARP_DEBUG=1 a traceback too)."""
    debug = os.environ.get("TIMEWARP_DEBUG") == "1"
    if not debug:
        warnings.simplefilter("ignore")
    try:
        return app(arguments or ["--help"], prog_name="timewarp", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        from timewarp.failure import describe

        status, line = describe(error)
        say(f"timewarp: {line}")
        return status
