"""Where OpenMM can compute on this machine."""

from __future__ import annotations

import functools
import subprocess
import sys
import warnings

import openmm

SURE = ("Reference", "CPU")  # no driver of a GPU takes part
LONGEST = 120.0  # s, that a trial may take: kernels are compiled in it
TRIAL = """
import sys
import openmm
system = openmm.System()
force = openmm.NonbondedForce()
for _ in range(2):
    system.addParticle(1.0)
    force.addParticle(0.1, 0.3, 1.0)
system.addForce(force)
platform = openmm.Platform.getPlatformByName(sys.argv[1])
context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
context.setPositions([(0.0, 0.0, 0.0), (0.4, 0.0, 0.0)])
context.getIntegrator().step(1)
context.getState(energy=True)
"""


def platforms() -> list[str]:
    """The names of the OpenMM platforms that are installed, slowest first."""
    found = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    return [platform.getName() for platform in sorted(found, key=lambda platform: platform.getSpeed())]


def usable() -> list[str]:
    """Those of `platforms` that can be tried in this process.

    A platform of a GPU whose driver does not suit may end the process, where no `except` helps: it is tried in another
    first, once, and left out with a warning if it ends that.
    """
    return [name for name in platforms() if name in SURE or survives(name)]


@functools.cache
def survives(platform: str) -> bool:
    """Whether a process of its own makes a step of two atoms on a platform."""
    quiet = subprocess.DEVNULL
    try:
        status = subprocess.run(
            [sys.executable, "-c", TRIAL, platform], stdin=quiet, stdout=quiet, stderr=quiet, timeout=LONGEST
        ).returncode
    except subprocess.TimeoutExpired:
        warnings.warn(f"OpenMM's platform {platform} is left out: it came to no end in {LONGEST:g} s", stacklevel=2)
        return False
    if status < 0:
        warnings.warn(f"OpenMM's platform {platform} is left out: it ends its process (signal {-status})", stacklevel=2)
    return status == 0
