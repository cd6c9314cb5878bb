"""What an error means to a user: an exit status and one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping

FAILED, BAD_INPUT = 1, 2
BAD = {  # what a user can mend, by the modules that raise it
    "timewarp.claim": "DirectoryRefused",
    "timewarp.md.faults": "InputError",
    "timewarp.resources": "ResourceMissing",
    "timewarp.settings": "SettingsError",
    "timewarp.training.checkpoint": "CheckpointError",
}


def describe(error: Exception) -> tuple[int, str]:
    """The exit status and the line for stderr: 2 where the input has to change, 1 where something else failed."""
    line = " ".join(_text(error).split())
    if isinstance(error, _bad_input()):
        return BAD_INPUT, line
    return FAILED, line if _spoken(error) else f"failed: {type(error).__name__}: {line} (TIMEWARP_DEBUG=1 says where)"


def _bad_input() -> tuple[type[Exception], ...]:
    import typer

    return *_loaded(BAD), typer.TyperException


def _loaded(names: Mapping[str, str]) -> tuple[type[Exception], ...]:
    """Those of the kinds whose modules are loaded: no error is of another, and loading them takes seconds."""
    return tuple(getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules)


def _spoken(error: Exception) -> bool:
    return isinstance(error, (*_loaded({"timewarp.claim": "OutputError"}), OSError))


def _text(error: Exception) -> str:
    if hasattr(error, "format_message"):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror and not isinstance(error, _bad_input()):
        return f"cannot use {error.filename or 'a file'}: {error.strerror}"
    return str(error) or "no message"
