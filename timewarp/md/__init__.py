"""OpenMM: the only place that imports it. A chemist's file or a sequence becomes a System, and a System is run."""

from timewarp.md.build import build
from timewarp.md.faults import InputError
from timewarp.md.pdb import write_pdb
from timewarp.md.potential import FORCEFIELD, create_system
from timewarp.md.sampler import TimewarpSampler
from timewarp.md.system import Prepared, prepare, prepare_sequence

__all__ = [
    "FORCEFIELD",
    "InputError",
    "Prepared",
    "TimewarpSampler",
    "build",
    "create_system",
    "prepare",
    "prepare_sequence",
    "write_pdb",
]
