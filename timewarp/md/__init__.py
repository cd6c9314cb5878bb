"""OpenMM: the only place that imports it. A chemist's file or a sequence becomes a System, and a System is run.

What it offers is loaded when it is asked for: OpenMM and torch take seconds, and two names need packages of their own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timewarp.md.faults import InputError
    from timewarp.md.mcmc_move import TimewarpMove
    from timewarp.md.pdb import write_pdb
    from timewarp.md.potential import FORCEFIELD, create_system
    from timewarp.md.replica import TimewarpReplicaExchangeSampler
    from timewarp.md.sampler import TimewarpSampler
    from timewarp.md.sequence import build
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

HOMES = {
    "faults": ("InputError",),
    "mcmc_move": ("TimewarpMove",),
    "pdb": ("write_pdb",),
    "potential": ("FORCEFIELD", "create_system"),
    "replica": ("TimewarpReplicaExchangeSampler",),
    "sampler": ("TimewarpSampler",),
    "sequence": ("build",),
    "system": ("Prepared", "prepare", "prepare_sequence"),
}


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"timewarp.md.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
