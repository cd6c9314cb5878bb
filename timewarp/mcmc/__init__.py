"""Markov kernels that leave exp(-U/kT) invariant whatever proposes the moves, and how far to trust their chains.

A kernel is a frozen dataclass with `init(state) -> S` and `step(S, rng) -> (S, info)`, for a batch of chains side by
side: positions [chains, atoms, 3]. S has `state` and `energy` (U/kT) and goes to and from a flat mapping of tensors
(`S.tensors()`, `kernel.restore(tensors)`), so that a run can be resumed exactly.

Every `info` holds, for each chain, `tested` (proposals tested in this step), `accepted` (whether the last of them was)
and `energy` (of the new state); and `evaluations`, the energy evaluations of the step over all chains.
**A step is `tested` units of time**: the old state stands for `tested - accepted` frames, then the new one for one if
it was accepted. Only `Metropolis` with a width above 1 has `tested` other than 1; see there for why it matters.

`kernel.exact` says whether the chain's law is the Boltzmann distribution; `Explore` is the only one that is not.
"""

from timewarp.mcmc.annealed import Annealed
from timewarp.mcmc.chain import Chain
from timewarp.mcmc.crew import Crew
from timewarp.mcmc.cycle import Cycle
from timewarp.mcmc.delayed import Delayed
from timewarp.mcmc.ess import autocorrelation_time, bulk_ess, rhat
from timewarp.mcmc.explore import Explore
from timewarp.mcmc.independence import Independence
from timewarp.mcmc.local import Hamiltonian, langevin
from timewarp.mcmc.metropolis import Metropolis
from timewarp.mcmc.mixture import Mixture
from timewarp.mcmc.multiple import MultipleTry
from timewarp.mcmc.propose import Propose
from timewarp.mcmc.regrowth import Regrowth
from timewarp.mcmc.repeat import Repeat

__all__ = [
    "Annealed",
    "Chain",
    "Crew",
    "Cycle",
    "Delayed",
    "Explore",
    "Hamiltonian",
    "Independence",
    "Metropolis",
    "Mixture",
    "MultipleTry",
    "Propose",
    "Regrowth",
    "Repeat",
    "autocorrelation_time",
    "bulk_ess",
    "langevin",
    "rhat",
]
