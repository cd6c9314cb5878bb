"""OpenMM in a loop, in every way that it can use this machine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from timewarp.assemble.benchmarks.rates import Way
from timewarp.state import Positions


def openmm_ways(
    system: Any, positions: Positions, gradient: bool, cores: int, pool: ThreadPoolExecutor
) -> dict[str, Way]:
    """Each platform that works here: the CPU's with one configuration a core at a time, and one over all cores.

    OpenMM releases the interpreter while it computes, so that the Contexts of several threads use several cores.

    Args:
        system: the `openmm.System` whose energy it is.
        positions: float64, nm; each call of a way evaluates all of them.
        gradient: forces too.
        cores: to be used.
        pool: of that many threads.
    """
    from timewarp.md.energy import OpenMMEnergy
    from timewarp.md.platforms import usable

    ways = {}
    for platform in usable():
        alone = platform not in ("Reference", "CPU")
        own = {"Threads": "1", "DeterministicForces": "false"} if platform == "CPU" else {}
        try:
            sides = [OpenMMEnergy(system, platform=platform, properties=own) for _ in range(1 if alone else cores)]
            for side in sides:
                side.kilojoules(positions[:1], gradient)
        except ValueError:  # installed, but without its hardware
            continue
        ways[f"{platform}" if len(sides) == 1 else f"{platform}, {cores} side by side"] = _way(
            sides, positions, gradient, pool
        )
        if platform == "CPU" and cores > 1:
            whole = OpenMMEnergy(system, platform=platform, properties=own | {"Threads": str(cores)})
            ways[f"CPU, {cores} threads"] = _way([whole], positions, gradient, pool)
    return ways


def _way(sides: Sequence, positions: Positions, gradient: bool, pool: ThreadPoolExecutor) -> Way:
    def work() -> int:
        if len(sides) == 1:
            sides[0].kilojoules(positions, gradient)
        else:
            list(pool.map(lambda side: side.kilojoules(positions, gradient), sides))
        return len(sides) * len(positions)

    return work
