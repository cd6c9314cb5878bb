"""From log acceptance ratios to decisions: the one place where it is done, and where what is not finite is rejected.

symbol                    variable
U(x), U(x')               energy, proposed
ln q(x|x') - ln q(x'|x)   log_ratio
ln alpha                  energy - proposed + log_ratio
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from timewarp.kernel import Energy
from timewarp.state import State

Batch = Float[Tensor, "*batch"]


def metropolis(energy: Batch, proposed: Batch, log_ratio: Batch, rng: torch.Generator) -> Bool[Tensor, "*batch"]:
    """Accept with probability min(1, exp(energy - proposed + log_ratio)).

    Anything not finite (a failed energy, a density of zero or NaN either way) is rejected. The uniform variable is
    1 - u with u in [0, 1): u itself is exactly 0 now and then (in float32 once in 2^24 draws), and its logarithm would
    accept the impossible.
    """
    log_alpha = energy.double() - proposed.double() + log_ratio.double()
    u = torch.rand(log_alpha.shape, generator=rng, dtype=torch.float64, device=log_alpha.device)
    return log_alpha.isfinite() & (torch.log1p(-u) <= log_alpha)


def rise_below(energy: Batch, proposed: Batch, rise: float) -> Bool[Tensor, "*batch"]:
    """Accept what raises the energy by at most `rise` (kT); what is not finite is rejected."""
    return proposed.isfinite() & (proposed.double() - energy.double() <= rise)


def velocity_log_prob(velocities: Float[Tensor, "*batch atoms channels"]) -> Batch:
    """ln N(v; 0, I), summed over atoms and channels; float64."""
    size = velocities.shape[-1] * velocities.shape[-2]
    if size == 0:
        return velocities.new_zeros(velocities.shape[:-2], dtype=torch.float64)
    return -0.5 * (velocities.double().square().sum((-2, -1)) + size * math.log(2 * math.pi))


def initial_energy(energy: Energy, state: State) -> Float[Tensor, " chains"]:
    """U/kT (float64) of the states that chains start from.

    Raises:
        ValueError: if the shape is not [chains, atoms, 3], or a position or an energy is not finite.
    """
    x = state.positions
    if x.ndim != 3 or x.shape[-1] != 3 or len(x) == 0:
        raise ValueError(
            f"expected initial positions of shape [chains, atoms, 3], got {list(x.shape)}; "
            "stack the chains along the first axis"
        )
    require_finite("initial positions in nm", x.flatten(1).sum(1), "check the structure that was read")
    values = energy(x).double()
    require_finite("an initial energy U/kT", values, "minimise the structure first")
    return values


def require_finite(what: str, values: Float[Tensor, " chains"], remedy: str) -> None:
    """Raise a ValueError that names the chains for which `values` is not finite."""
    bad = (~values.isfinite()).nonzero().flatten().tolist()
    if bad:
        some = ", ".join(f"{values[c].item()} in chain {c}" for c in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise ValueError(f"expected {what}, finite for every chain; got {some}; {remedy}")
