"""What is said of a force that has no place in the tables of a `ForceField`."""

from __future__ import annotations

import openmm


class UnsupportedForce(ValueError):
    """The System has a force whose energy the batched potential does not know."""


def unsupported(force: openmm.Force, what: str = "") -> UnsupportedForce:
    """The error that names `force`, and what of it is not known."""
    kind = type(force).__name__
    name = kind if force.getName() == kind else f"{force.getName()} ({kind})"
    return UnsupportedForce(f"the batched potential does not know {name}{what and f', which has {what}'}")
