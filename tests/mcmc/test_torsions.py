"""Torsion moves leave their target invariant, and no other; what is not finite is rejected."""

import inspect
import math
import textwrap
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp.energy import Bonded
from timewarp.flow.chart import InternalChart
from timewarp.kernel import Kernel, run
from timewarp.mcmc import torsions as module
from timewarp.mcmc.torsions import Torsions
from timewarp.md.export import export
from timewarp.md.system import prepare_sequence
from timewarp.state import State

from .toys import seeded

WIDTH = 0.8  # of the target's stiff coordinates


class Polar:
    """Two atoms, each at angle tau, radius exp(0.4 z) and height z': a chart whose volume is not constant."""

    torsions, stiffs = 2, 4

    def forward(self, x):
        radius = x[..., :2].square().sum(-1).sqrt()
        torsions = torch.atan2(x[..., 1], x[..., 0])
        return torsions, torch.cat([radius.log() / 0.4, x[..., 2]], -1), self._log_det(radius)

    def inverse(self, torsions, stiff):
        radius = torch.exp(0.4 * stiff[..., :2])
        x = torch.stack([radius * torsions.cos(), radius * torsions.sin(), stiff[..., 2:]], -1)
        return x, self._log_det(radius)

    @staticmethod
    def _log_det(radius):
        return -(torch.log(0.4 * radius) + torch.log(radius)).sum(-1)


def leaning(torsions):
    """A response: where the kernel believes the stiff coordinates to be, which is not where the target has them."""
    a, b = torsions.unbind(-1)
    return torch.stack([a.cos(), b.sin(), 0.7 * (a - b).cos(), -0.7 * a.sin()], -1)


def centre(torsions):
    """Where the target has them."""
    a, b = torsions.unbind(-1)
    return torch.stack([0.6 * a.cos(), 0.3 * b.sin(), 0.5 * b.cos(), 0.2 * a.sin()], -1)


def log_weight(a, b):
    """ln p(tau), unnormalised; the two torsions are independent."""
    return 1.5 * torch.cos(a - 1) + 0.8 * torch.cos(2 * b)


@dataclass(frozen=True)
class Known:
    """U/kT of which the density of (tau, z) is exp(log_weight) N(z; centre(tau), WIDTH^2)."""

    def __call__(self, positions):
        torsions, stiff, log_det = Polar().forward(positions)
        z = (stiff - centre(torsions)) / WIDTH
        return 0.5 * z.square().sum(-1) - log_weight(*torsions.unbind(-1)) - log_det


def p_values(torsions, stiff):
    """K-S of the two torsions, and of the stiff coordinates about their centre."""
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)
    zero = torch.zeros_like(grid)
    found = []
    for k, weight in enumerate((log_weight(grid, zero), log_weight(zero, grid))):
        cdf = torch.cat([zero[:1], torch.cumulative_trapezoid(weight.exp(), grid)])
        sample = torsions[:, k].numpy()
        found.append(stats.kstest(sample, np.interp, (grid.numpy(), (cdf / cdf[-1]).numpy())).pvalue)
    z = (stiff - centre(torsions)) / WIDTH
    return found + [stats.kstest(z[:, k].numpy(), "norm").pvalue for k in range(4)]


def drawn(chains, rng):
    """Exact draws of the target."""
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)
    torsions = []
    for weight in (log_weight(grid, 0 * grid), log_weight(0 * grid, grid)):
        cdf = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(weight.exp(), grid)])
        u = torch.rand(chains, generator=rng, dtype=torch.float64)
        torsions.append(torch.as_tensor(np.interp(u, cdf / cdf[-1], grid)))
    torsions = torch.stack(torsions, -1).float()
    return torsions, centre(torsions) + WIDTH * torch.randn(chains, 4, generator=rng)


def after(kernel, state, steps, rng):
    """The last state of so many steps."""
    *_, (state, _) = run(kernel, state, steps, rng)
    return state


def end(kernel, chains=4000, steps=60, seed=0):
    """Independent chains, begun with exact draws of the target, after many steps."""
    rng = seeded(seed)
    state = kernel.init(State.at(Polar().inverse(*drawn(chains, rng))[0]))
    return after(kernel, state, steps, rng)


def kernel(kind=Torsions, **how):
    return kind(Polar(), leaning, Known(), **how)


def mutated(method, text, instead):
    """The kernel with one formula of it changed."""
    source = textwrap.dedent(inspect.getsource(getattr(Torsions, method)))
    assert source.count(text) == 1, "the formula is written otherwise now: change the test with it"
    scope = dict(vars(module))
    exec("from __future__ import annotations\n" + source.replace(text, instead), scope)
    return type("Mutated", (Torsions,), {method: scope[method]})


def test_it_is_a_kernel():
    assert isinstance(kernel(), Kernel)


@pytest.mark.parametrize("how", [{}, {"turns": 1, "stir": 1.0}, {"turns": 2, "stir": 0.2}])
def test_it_samples_the_target(how):
    state = end(kernel(**how))
    assert min(p_values(state.torsions, state.noise + state.mean)) > 1e-3


@pytest.mark.parametrize(
    ("method", "text", "instead"),
    [
        ("step", "gain + gauss", "gain"),
        ("step", "gain + gauss", "gain - gauss"),
        ("_at", "- log_det", ""),
        ("_at", "- log_det", "+ log_det"),
        ("_at", "-energy", "-0.8 * energy"),
        ("step", "state.noise + b * xi", "(state.noise + state.mean) + b * xi"),
        ("step", "(1 - b * b).sqrt() * state.noise", "state.noise"),
        ("step", "0.4 * torch.randn(chains", "0.4 * torch.rand(chains"),  # to one side only
    ],
)
def test_it_does_not_sample_it_with_a_formula_broken(method, text, instead):
    state = end(kernel(mutated(method, text, instead)))
    assert min(p_values(state.torsions, state.noise + state.mean)) < 1e-6


def test_it_forgets_where_it_began():
    """From random torsions and standard noise, at last, as from the target."""
    rng = seeded(0)
    state = kernel().begin(4000, rng)
    assert min(p_values(state.torsions, state.noise + state.mean)) < 1e-6
    state = after(kernel(), state, 200, rng)
    assert min(p_values(state.torsions, state.noise + state.mean)) > 1e-3


def test_any_response_gives_the_same_target():
    """The response is a guess of where the stiff coordinates go; acceptance alone depends on it."""
    rates = []
    for response in (centre, lambda t: -3 * centre(t)):
        state = end(replace(kernel(), response=response))
        assert min(p_values(state.torsions, state.noise + state.mean)) > 1e-3
        _, info = replace(kernel(), response=response).step(state, seeded(1))
        rates.append(info["accepted"].double().mean())
    assert rates[0] > rates[1] + 0.1


def test_a_response_that_stays_behind_is_seen():
    """The mean of the stiff coordinates has to be that of the torsions the chain is at."""

    class Behind(Torsions):
        def _at(self, torsions, noise, mean):
            at = super()._at(torsions, noise, mean)
            return replace(at, mean=leaning(torsions + 0.5))

    state = end(kernel(Behind))
    positions = state.positions
    torsions, stiff, _ = Polar().forward(positions)
    assert min(p_values(torsions, stiff)) > 1e-3  # the positions are right: the mean is kept for them alone
    assert min(p_values(torsions, state.noise + state.mean)) < 1e-6


def test_the_state_is_consistent():
    """Positions, mean and energy are those of the torsions and the noise, accepted or not."""
    state = end(kernel(), chains=200, steps=10)
    torsions, stiff, log_det = Polar().forward(state.positions)
    assert (torch.remainder(torsions - state.torsions + 1, 2 * math.pi) - 1).abs().max() < 1e-5
    assert torch.equal(state.mean, leaning(state.torsions))
    assert (stiff - state.noise - state.mean).abs().max() < 1e-5
    energy = Known()(state.positions)
    assert (energy - state.energy).abs().max() < 1e-4
    assert (-energy - log_det - state.log_density).abs().max() < 1e-4


def test_init_is_at_the_positions_given():
    made = end(kernel(), chains=50, steps=3)
    state = kernel().init(State.at(made.positions))
    assert (state.positions - made.positions).abs().max() < 1e-5
    assert (state.log_density - made.log_density).abs().max() < 1e-4
    assert torch.equal(state.state.positions, state.positions)
    moved, evaluations = kernel().moved(state, made.positions.flip(0), made.energy.flip(0))
    assert (moved.positions - made.positions.flip(0)).abs().max() < 1e-5
    assert evaluations == 100


def test_a_bad_beginning_is_refused():
    positions = torch.full((2, 2, 3), 0.5)
    positions[1, 0] = math.nan
    with pytest.raises(ValueError, match="finite for every chain"):
        kernel().init(State.at(positions))


def test_a_step_is_pure():
    state = kernel().begin(30, seeded(0))
    before = {name: t.clone() for name, t in state.tensors().items()}
    one, info = kernel().step(state, seeded(1))
    two, _ = kernel().step(kernel().restore(state.tensors()), seeded(1))
    for name, t in one.tensors().items():
        assert torch.equal(t, getattr(two, name))
        assert torch.equal(before[name], state.tensors()[name])
    stayed = ~info["accepted"]
    assert stayed.any()
    assert info["accepted"].any()
    assert torch.equal(one.positions[stayed], state.positions[stayed])
    assert info["evaluations"] == 60
    assert torch.equal(info["tested"], torch.ones(30, dtype=torch.int64))
    assert torch.equal(info["energy"], one.energy)


def test_what_is_not_finite_is_rejected():
    """NaN in a wedge of the circle: no chain enters, and within the rest the target is the same."""

    def energy(positions):
        angle = torch.atan2(positions[:, 0, 1], positions[:, 0, 0])
        return torch.where(angle < -1, math.nan, Known()(positions))

    walk, rng = replace(kernel(), energy=energy), seeded(0)
    torsions, stiff = drawn(4000, rng)
    inside = torsions[:, 0] >= -1
    state = walk.init(State.at(Polar().inverse(torsions[inside], stiff[inside])[0]))
    state = after(walk, state, 60, rng)
    assert state.torsions[:, 0].min() >= -1
    assert state.log_density.isfinite().all()
    grid = torch.linspace(-1, math.pi, 4001, dtype=torch.float64)
    cdf = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(log_weight(grid, 0 * grid).exp(), grid)])
    sample = state.torsions[:, 0].numpy()
    assert stats.kstest(sample, np.interp, (grid.numpy(), (cdf / cdf[-1]).numpy())).pvalue > 1e-3


def test_a_chain_that_begins_in_a_clash_gets_out():
    def energy(positions):
        angle = torch.atan2(positions[:, 0, 1], positions[:, 0, 0])
        return torch.where(angle < -1, math.inf, Known()(positions))

    walk, rng = replace(kernel(), energy=energy), seeded(0)
    state = walk.begin(500, rng)
    assert state.log_density.isneginf().any()
    state = after(walk, state, 40, rng)
    assert state.log_density.isfinite().all()


def test_a_hot_walk_is_flatter_and_a_cold_one_is_the_target():
    hot = end(kernel().heated(5.0))
    cold = end(kernel().heated(5.0).heated(1.0))
    assert min(p_values(cold.torsions, cold.noise + cold.mean)) > 1e-3
    along = [torch.cos(s.torsions[:, 0] - 1).mean() for s in (hot, cold)]
    assert along[0] < along[1] - 0.2


@cache
def glycines():
    prepared = prepare_sequence("GG")
    molecule = export(prepared.topology, prepared.system, prepared.positions)
    return InternalChart(molecule, Bonded(molecule), dtype=torch.float64)


@dataclass(frozen=True)
class InChart:
    """A known density of (tau, z) of a peptide's own chart: torsions lean to 1 rad, z is N(0.5 cos(tau_0), 1)."""

    chart: InternalChart

    def __call__(self, positions):
        torsions, stiff, log_det = self.chart.forward(positions.double())
        z = stiff - 0.5 * torch.cos(torsions[:, :1])
        return 0.5 * z.square().sum(-1) - torch.cos(torsions - 1).sum(-1) - log_det


def in_chart(chart, chains=4000):
    """K-S of torsions, some stiff coordinates and the volume, of chains through `chart` begun with exact draws."""
    rng = seeded(0)
    torsions = torch.as_tensor(stats.vonmises(1.0).rvs((chains, chart.torsions), random_state=0)) + 1
    stiff = torch.randn(chains, chart.stiffs, generator=rng, dtype=torch.float64) + 0.5 * torch.cos(torsions[:, :1])
    response = lambda t: 0.3 * torch.sin(t[:, :1]).expand(-1, chart.stiffs)  # noqa: E731
    walk = Torsions(chart, response, InChart(glycines()), stir=1.0)
    state = walk.init(State.at(glycines().inverse(torsions, stiff)[0]))
    state = after(walk, state, 30, rng)
    volumes = [glycines().inverse(*at)[1] for at in ((torsions, stiff), (state.torsions, state.noise + state.mean))]
    torsions, stiff = state.torsions, state.noise + state.mean
    z = stiff - 0.5 * torch.cos(torsions[:, :1])
    turned = (torch.remainder(torsions - 1 + math.pi, 2 * math.pi) - math.pi).numpy()
    found = [stats.kstest(turned[:, k], stats.vonmises(1.0).cdf).pvalue for k in range(chart.torsions)]
    found += [stats.kstest(z[:, k].numpy(), "norm").pvalue for k in (0, 5, 20)]
    return [*found, stats.ks_2samp(*(v.numpy() for v in volumes)).pvalue]


def test_it_samples_a_target_through_the_chart_of_a_peptide():
    assert min(in_chart(glycines())) > 1e-3


def test_it_does_not_without_the_volume_of_the_chart():
    class Flat:
        torsions, stiffs = glycines().torsions, glycines().stiffs

        def forward(self, positions):
            return glycines().forward(positions)

        def inverse(self, torsions, stiff):
            positions, log_det = glycines().inverse(torsions, stiff)
            return positions, 0 * log_det

    assert min(in_chart(Flat())) < 1e-6
