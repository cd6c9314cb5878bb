"""Every kernel and their mixture on targets of known law, by K-S, moments and a joint test; each break is seen.

The level is 1 % for each of the three statistics: chains that start in the target's law are independent draws of it at
any later time, so that their p-values are exact. A break has to be seen with p < 1e-6 by one of them. Torsion moves,
annealed paths and tempering have targets of their own, with the same sort of breaks: `test_torsions`, `test_annealed`,
`test_tempering`.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp.kernel import run
from timewarp.mcmc import (
    Hamiltonian,
    Independence,
    Metropolis,
    Mixture,
    MultipleTry,
    Propose,
    accept,
    local,
    metropolis,
    multiple,
)
from timewarp.mcmc.delayed import Judged
from timewarp.mcmc.local import Phase
from timewarp.mcmc.mixture import Parts
from timewarp.state import State

from . import test_torsions as polar
from .test_propose import step_about, stretched
from .toys import GAUSS, WELLS, Coupled, CoupledAt, Fixed, Separable, invariance, ks, seeded, series

ONE = torch.ones(1)
KERNELS = {
    "metropolis": lambda energy: Metropolis(energy, Coupled(), 1),
    "independence": lambda energy: Independence(energy, Fixed(), 5),
    "multiple try": lambda energy: MultipleTry(energy, Fixed(), 4),
    "hmc": lambda energy: Hamiltonian(energy, ONE, 0.4, 3),
    "langevin": lambda energy: Hamiltonian(energy, ONE, 0.4, 1, persistence=0.8, jitter=0.0),
    "propose": lambda energy: Mixture((Propose(energy, stretched(1)), Propose(energy, step_about)), (3.0, 1.0)),
}
KERNELS["mixture"] = lambda energy: Mixture(
    tuple(KERNELS[name](energy) for name in ("metropolis", "independence", "multiple try", "hmc", "langevin")),
    (1.0, 1.0, 1.0, 1.0, 1.0),
)
TARGETS = {"gauss": GAUSS, "wells": WELLS}


def laws(kernel, target: Separable, tests: int = 20, chains: int = 4000, seed: int = 3) -> tuple[float, float]:
    """p-values of K-S, and of mean and variance of each coordinate and of products of two against exact draws."""
    rng = seeded(seed)
    start = thermal(kernel.init(State.at(target.draw(chains, rng), 3, rng)), rng)
    x = series(kernel, start, tests, rng)[-1].flatten(1)
    distribution = min(1.0, 2 * min(ks(x[:, 0], target.cdf, chains), ks(x[:, 1], target.cdf_other, chains)))
    y = target.draw(100_000, rng).flatten(1)
    p = []
    for f in (
        lambda t: t[:, 0],
        lambda t: t[:, 0] ** 2,
        lambda t: t[:, 1],
        lambda t: t[:, 1] ** 2,
        lambda t: t[:, 0] * t[:, 1],
        lambda t: t[:, 1] * t[:, 2],
    ):
        a, b = f(x), f(y)
        z = (a.mean() - b.mean()) / (a.var() / len(a) + b.var() / len(b)).sqrt()
        p.append(2 * stats.norm.sf(abs(float(z))))
    return distribution, min(1.0, len(p) * min(p))


def thermal(state, rng: torch.Generator):
    """The same state with momenta of its own: a kernel that keeps some of them begins at rest, which is not its law."""
    if isinstance(state, Phase):
        fresh = torch.randn(state.momenta.shape, generator=rng, dtype=state.momenta.dtype)
        return replace(state, momenta=fresh)
    if isinstance(state, Parts):
        return replace(state, parts=tuple(thermal(part, rng) for part in state.parts))
    if isinstance(state, Judged):
        return replace(state, inner=thermal(state.inner, rng))
    return state


def joint(make, target: Separable, rounds: int = 10, chains: int = 3000, seed: int = 8) -> float:
    """Geweke: y | x ~ N(x, 1) and the kernel for x | y, in turn, keep the joint law of both (p-value)."""
    rng = seeded(seed)
    x = target.draw(chains, rng)
    for _ in range(rounds):
        y = x + torch.randn(x.shape, generator=rng, dtype=x.dtype)

        def energy(positions, y=y):
            each = positions.reshape(-1, *y.shape)
            return (target(each) + 0.5 * (each - y).square().sum((-2, -1))).view(positions.shape[:-2])

        kernel = make(energy)
        for state, _ in run(kernel, thermal(kernel.init(State.at(x, 3, rng)), rng), 3, rng):  # noqa: B007
            pass
        x = state.state.positions
    y = x + torch.randn(x.shape, generator=rng, dtype=x.dtype)
    flat, other = x.flatten(1), y.flatten(1)
    p = [ks(flat[:, 0], target.cdf, chains), ks(flat[:, 1], target.cdf_other, chains)]
    scale = math.sqrt(target.sigma**2 + 1)
    p.append(ks(other[:, 1], stats.norm(target.mean, scale).cdf, chains))
    p.append(ks((other - flat)[:, 0], stats.norm.cdf, chains))
    p.append(ks((flat + other)[:, 2], stats.norm(2 * target.mean, math.sqrt(4 * target.sigma**2 + 1)).cdf, chains))
    return min(1.0, len(p) * min(p))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_target_is_left_invariant(kernel, target):
    make, law = KERNELS[kernel], TARGETS[target]
    distribution, moments = laws(make(law), law)
    assert distribution > 0.01
    assert moments > 0.01
    assert joint(make, law) > 0.01


def flipped(patch):
    """The log ratio is subtracted."""
    right = accept.metropolis
    patch.setattr(accept, "metropolis", lambda u, v, ratio, rng: right(u, v, -ratio, rng))


def unrefreshed(patch):
    """Velocities and momenta are not drawn anew."""
    patch.setattr(metropolis, "_refreshed", lambda x, width, channels, rng: x.new_zeros(width, *x.shape))
    patch.setattr(local, "_normal", lambda x, rng: torch.zeros_like(x))


def without_velocities(patch):
    """The velocities' own density is left out."""
    patch.setattr(accept, "velocity_log_prob", lambda v: v.new_zeros(v.shape[:-2]))


def without_volume(patch):
    """The log determinant of the proposal's map is wrong, or left out."""
    patch.setattr(CoupledAt, "log_det", lambda self, s_x, s_v: (s_x + s_v).sum((-2, -1)))
    right = Fixed.log_prob
    patch.setattr(Fixed, "log_prob", lambda self, state: 0.6 * right(self, state))


def swelling(patch, by=1.1):
    """The integrator does not keep the volume."""
    right = Hamiltonian._trajectory

    def grown(self, x, energy, z, g, s):
        x, _, z, _ = right(self, x, energy, z, g, s)
        x = by * x
        return x, *self._slope(x)[:1], z, self._slope(x)[1]

    patch.setattr(Hamiltonian, "_trajectory", grown)


def barely_swelling(patch):
    """The same by so little that stiff bonds bear it."""
    swelling(patch, 1.01)


def untested(patch):
    """Everything finite is accepted."""
    patch.setattr(accept, "metropolis", lambda u, v, ratio, rng: v.isfinite())


def one_weight_short(patch):
    """Multiple try: the present is left out of the weights that a move back would choose from."""
    patch.setattr(multiple, "log_sum_without", lambda log_w, pick, present: log_w.logsumexp(0))


def seen(make) -> bool:
    """Whether one of the statistics refutes the kernel."""
    tried = (
        lambda: invariance(make(WELLS), WELLS, 30),
        lambda: joint(make, WELLS),
        lambda: min(laws(make(WELLS), WELLS, 60)),
        lambda: invariance(make(WELLS), WELLS, 60, 20_000),
    )
    return any(p() < 1e-6 for p in tried)


BREAKS = [
    *[(k, flipped) for k in ("metropolis", "independence", "hmc", "langevin", "mixture")],
    *[(k, unrefreshed) for k in ("metropolis", "hmc", "mixture")],
    *[(k, without_velocities) for k in ("metropolis", "independence", "multiple try", "mixture")],
    *[(k, without_volume) for k in ("metropolis", "independence", "multiple try", "mixture")],
    *[(k, swelling) for k in ("hmc", "langevin", "mixture")],
    *[(k, untested) for k in ("metropolis", "independence", "hmc", "langevin", "propose", "mixture")],
    ("multiple try", one_weight_short),
]


@pytest.mark.parametrize(("kernel", "broken"), BREAKS, ids=[f"{k}-{b.__name__}" for k, b in BREAKS])
def test_a_break_is_seen(kernel, broken, monkeypatch):
    broken(monkeypatch)
    make = KERNELS[kernel]
    assert seen(make)


@pytest.mark.parametrize("wrong", [-1, 0])
def test_a_stretch_without_its_jacobian_is_seen(wrong):
    def make(energy):
        return Mixture((Propose(energy, stretched(wrong)), Propose(energy, step_about)), (3.0, 1.0))

    assert seen(make)


def dipeptide(mixed: bool, chains: int = 400, steps: int = 4) -> tuple[float, float]:
    """p-value of HMC, alone or with torsion moves, on a density known in the chart of GG; and the acceptance."""
    chart, rng = polar.glycines(), seeded(0)
    torsions = torch.as_tensor(stats.vonmises(1.0).rvs((chains, chart.torsions), random_state=0)) + 1
    z = torch.randn(chains, chart.stiffs, generator=rng, dtype=torch.float64) + 0.5 * torch.cos(torsions[:, :1])
    energy = polar.InChart(chart)
    hmc = Hamiltonian(energy, torch.ones(chart.atoms, dtype=torch.float64), 0.002, 6)
    walk = polar.Torsions(chart, lambda t: 0.3 * torch.sin(t[:, :1]).expand(-1, chart.stiffs), energy)
    kernel = Mixture((hmc, walk), (1.0, 1.0)) if mixed else hmc
    state = kernel.init(State.at(chart.inverse(torsions, z)[0]))
    rates = []
    for state, info in run(kernel, state, steps, rng):  # noqa: B020, B007
        rates.append(info["accepted"].double().mean().item())
    torsions, z, _ = chart.forward(state.state.positions.double())
    z = z - 0.5 * torch.cos(torsions[:, :1])
    turned = (torch.remainder(torsions - 1 + math.pi, 2 * math.pi) - math.pi).numpy()
    p = [stats.kstest(turned[:, k], stats.vonmises(1.0).cdf).pvalue for k in range(turned.shape[1])]
    p += [stats.kstest(z[:, k].numpy(), "norm").pvalue for k in range(z.shape[1])]
    p.append(2 * stats.norm.sf(abs(float((z.square().mean() - 1) * math.sqrt(z.numel() / 2)))))
    return min(1.0, len(p) * min(p)), float(np.mean(rates))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_dipeptide_of_known_law(mixed):
    p, rate = dipeptide(mixed)
    assert 0.1 < rate < 0.999
    assert p > 0.01


@pytest.mark.parametrize("broken", [flipped, unrefreshed, barely_swelling, untested])
def test_a_break_is_seen_on_the_dipeptide(broken, monkeypatch):
    broken(monkeypatch)
    assert dipeptide(False, 800, 12)[0] < 1e-6
