"""The batched potential: the force field of one molecule evaluated for many configurations at once, in torch."""

from timewarp.energy.bonded import Bonded
from timewarp.energy.potential import Potential

__all__ = ["Bonded", "Potential"]
