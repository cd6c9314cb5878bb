"""`timewarp bench`: what is fast here, measured in one run against what it replaces."""

from __future__ import annotations

from timewarp.assemble.benchmarks.energy import bench_energy
from timewarp.assemble.benchmarks.md import bench_md
from timewarp.settings import BenchSettings, Progress, Report, Stop

__all__ = ["bench", "bench_energy", "bench_md"]


def bench(settings: BenchSettings, progress: Progress, stop: Stop) -> Report:
    """Measure what the settings ask for: the energy, or dynamics."""
    return (bench_md if settings.md else bench_energy)(settings, progress, stop)
