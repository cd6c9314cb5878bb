"""The one place where md reaches up to the assembling modules: a user names a Simulation, not a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from timewarp.kernel import Kernel
from timewarp.md.moves import Binder, Bound
from timewarp.md.target import Target


def flow_binder(checkpoint: str | Path | None) -> Binder:
    """Makes the flow's kernel of a target, with the weights of a checkpoint (None for those of the package)."""

    def bind(target: Target, arrays: Mapping[str, Tensor] | None) -> Bound:
        from timewarp.assemble.embedded import embed  # imported here: assemble imports md

        return embed(target, checkpoint, arrays)

    return bind


def kernel_binder(make: Callable[[float], Kernel]) -> Binder:
    """Takes the kernels that `make` gives for a temperature in K."""

    def bind(target: Target, arrays: Mapping[str, Tensor] | None) -> Bound:
        return Bound(make(target.temperature))

    return bind
