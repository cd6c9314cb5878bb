"""OpenMM: the only place that imports it. A chemist's file or a sequence becomes a System, and a System is run."""

from importlib import import_module
from typing import Any

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
    "TimewarpMove",
    "TimewarpReplicaExchangeSampler",
    "TimewarpSampler",
    "build",
    "create_system",
    "prepare",
    "prepare_sequence",
    "write_pdb",
]

# what needs openmmtools, or an OpenMM that has replica exchange, is loaded when it is asked for
_LATER = {"TimewarpMove": "timewarp.md.mcmc_move", "TimewarpReplicaExchangeSampler": "timewarp.md.replica"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
