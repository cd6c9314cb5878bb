"""`timewarp bench`: what is fast here, measured in one run against what it replaces."""

from __future__ import annotations

from timewarp.assemble.benchmarks.energy import bench_energy
from timewarp.settings import BenchSettings, Progress, Report, Stop

__all__ = ["bench", "bench_energy"]


def bench(settings: BenchSettings, progress: Progress, stop: Stop) -> Report:
    """Measure what the settings ask for: the energy."""
    return bench_energy(settings, progress, stop)
