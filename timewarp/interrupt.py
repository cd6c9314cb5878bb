"""Stopping when asked: the first Ctrl-C or SIGTERM lets the current step finish, the second ends at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """Called, it tells whether the user has asked to stop; as a context manager it listens for the signals."""

    def __init__(self, notice: Callable[[str], None]):
        self.asked = False
        self._notice = notice
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)  # what was saved is whole at any moment, so nothing has to be undone
        self.asked = True
        self._notice("stopping after this step; once more ends at once")
