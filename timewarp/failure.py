"""What an error means to a user: an exit status and one line."""

from __future__ import annotations

FAILED, BAD_INPUT = 1, 2


def describe(error: Exception) -> tuple[int, str]:
    """The exit status and the line for stderr: 2 where the input has to change, 1 where something else failed."""
    line = " ".join(_text(error).split())
    if isinstance(error, _bad_input()):
        return BAD_INPUT, line
    return FAILED, line if _spoken(error) else f"failed: {type(error).__name__}: {line} (TIMEWARP_DEBUG=1 says where)"


def _bad_input() -> tuple[type[Exception], ...]:
    import typer

    from timewarp.claim import DirectoryRefused
    from timewarp.md.faults import InputError
    from timewarp.resources import ResourceMissing
    from timewarp.settings import SettingsError
    from timewarp.training.checkpoint import CheckpointError

    return InputError, SettingsError, DirectoryRefused, ResourceMissing, CheckpointError, typer.TyperException


def _spoken(error: Exception) -> bool:
    from timewarp.claim import OutputError

    return isinstance(error, OutputError | OSError)


def _text(error: Exception) -> str:
    if hasattr(error, "format_message"):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror and not isinstance(error, _bad_input()):
        return f"cannot use {error.filename or 'a file'}: {error.strerror}"
    return str(error) or "no message"
