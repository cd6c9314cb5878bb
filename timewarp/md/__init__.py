"""OpenMM: the only place that imports it. A chemist's file or a sequence becomes a System, and a System is run.

What it offers is loaded when it is asked for: OpenMM and torch take seconds, and two names need packages of their own.
"""

from typing import TYPE_CHECKING

from timewarp.late import late

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

__getattr__ = late(
    __name__,
    {
        "faults": ("InputError",),
        "mcmc_move": ("TimewarpMove",),
        "pdb": ("write_pdb",),
        "potential": ("FORCEFIELD", "create_system"),
        "replica": ("TimewarpReplicaExchangeSampler",),
        "sampler": ("TimewarpSampler",),
        "sequence": ("build",),
        "system": ("Prepared", "prepare", "prepare_sequence"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
