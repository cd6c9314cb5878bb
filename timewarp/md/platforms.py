"""Where OpenMM can compute on this machine."""

from __future__ import annotations

import openmm


def platforms() -> list[str]:
    """The names of the OpenMM platforms that are installed, slowest first."""
    found = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    return [platform.getName() for platform in sorted(found, key=lambda platform: platform.getSpeed())]
