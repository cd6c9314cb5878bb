"""Where flow, energy, kernels and files meet: one function a command.

Each takes settings, a progress callback and a stop callback, and returns what the command reports.
"""

from timewarp.assemble.md import md
from timewarp.assemble.sample import explore, sample

__all__ = ["explore", "md", "sample"]
