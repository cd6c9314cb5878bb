"""Where flow, energy, kernels and files meet: one function a command.

Each takes settings, a progress callback and a stop callback, and returns what the command reports.
"""

from timewarp.assemble.adapt import adapt
from timewarp.assemble.benchmarks import bench
from timewarp.assemble.data import data
from timewarp.assemble.evaluate import evaluate
from timewarp.assemble.explore import explore
from timewarp.assemble.md import md
from timewarp.assemble.sample import sample
from timewarp.assemble.speedup import compare, race
from timewarp.assemble.train import train

__all__ = ["adapt", "bench", "compare", "data", "evaluate", "explore", "md", "race", "sample", "train"]
