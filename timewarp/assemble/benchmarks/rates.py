"""Rates of several ways to do the same, measured in turns so that a busy machine is busy for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

from timewarp.settings import Stop

Way = Callable[[], int]  # does some of the work, and says how many configurations that was


class Interrupted(Exception):
    """The run was asked to stop, or its time is over, before all was measured."""


def rates(ways: Mapping[str, Way], rounds: int, seconds: float, stop: Stop) -> dict[str, list[float]]:
    """Configurations a second of each way in each round, after one call of each that is not counted.

    Args:
        ways: by name.
        rounds: in each of which every way has its turn.
        seconds: that a turn takes at least.
        stop: asked before each turn.

    Raises:
        Interrupted: if `stop` says so.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name, way in ways.items():
            if stop():
                raise Interrupted
            began, count = time.perf_counter(), 0
            while True:
                count += way()
                took = time.perf_counter() - began
                if number < 0 or took >= seconds:
                    break
            if number >= 0:
                found[name].append(count / took)
    return found


def fastest(measured: Mapping[str, list[float]]) -> str:
    """The name of the way with the highest median rate."""
    return max(measured, key=lambda name: median(measured[name]))


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds of one rate over the other."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))
