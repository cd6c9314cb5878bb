"""Laws of the torsions' density: causal, its samples' density the one returned, untrained the force field's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from timewarp import units
from timewarp.energy import Bonded
from timewarp.flow.circular import Circular
from timewarp.flow.growth import ANGLES, Growth
from timewarp.flow.internal import Internal
from timewarp.flow.tokens import Tokens
from timewarp.flow.torsion import Stump
from timewarp.flow.warmth import AS_TRAINED, Warmth

from .molecules import SMALL, chart_of, flow_of, molecule_of, tokens_of

SEQUENCE = "AA"


def parts(dtype=torch.float64, sequence=SEQUENCE, seed=0, spread=0.3):
    flow = flow_of(dtype, seed, spread)
    tokens = tokens_of(molecule_of(sequence), chart_of(sequence), dtype)
    with torch.no_grad():
        return flow.torsion, tokens, flow.encoder(tokens)


def anywhere(count, torsions, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(count, torsions, generator=rng, dtype=dtype) - 1) * torch.pi


@torch.no_grad()
def test_an_angle_has_no_say_in_the_densities_before_it():
    """Changing torsion t leaves the sum over those before it alone, and changes what comes after."""
    net, tokens, atoms = parts()
    count = tokens.torsion_energy.shape[0]
    tau = anywhere(50, count)
    growth = Growth(molecule_of(SEQUENCE), chart_of(SEQUENCE), 310.0)

    def each(x):
        curves = growth.curves(x)
        static, bias = net.context(tokens, atoms)
        told = net.told(static[None], x)
        told = torch.cat([net.start.expand(len(x), 1, -1), told[:, :-1]], 1)
        y = net.slots(static[None], told, curves)
        for block in net.blocks:
            y = block(y, bias[None])
        return Circular(net.grid(y, tokens.torsion_energy, curves)).log_prob(x)

    assert (each(tau).sum(1) - net.log_prob(tokens, atoms, tau, growth.curves(tau))).abs().max() < 1e-10
    for t in range(count):
        other = tau.clone()
        other[:, t] = anywhere(50, 1, seed=9)[:, 0]
        change = (each(other) - each(tau)).abs().amax(0)
        assert change[:t].max() < 1e-12 if t else True
        assert change[t] > 1e-3
        assert change[t + 1 :].min() > 1e-6 if t + 1 < count else True


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-3)])
def test_the_density_of_a_sample_is_the_one_returned(dtype, tolerance):
    net, tokens, atoms = parts(dtype)
    uniform = torch.rand(300, len(tokens.torsion_energy), generator=torch.Generator().manual_seed(0), dtype=dtype)
    tau, log_prob = net.sample(tokens, atoms, uniform)
    assert tau.dtype == log_prob.dtype == dtype
    assert (net.log_prob(tokens, atoms, tau) - log_prob).abs().max() < tolerance


@torch.no_grad()
@pytest.mark.parametrize("warmth", [0.8, 1.0, 1.3])
def test_a_warm_density_is_that_of_its_samples_normalised_and_to_the_power_of_one_over_the_warmth(warmth):
    net, tokens, atoms = parts()
    count = len(tokens.torsion_energy)
    uniform = torch.rand(300, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tau, log_prob = net.sample(tokens, atoms, uniform, warmth=Warmth((warmth,)))
    assert (net.log_prob(tokens, atoms, tau, warmth=Warmth((warmth,))) - log_prob).abs().max() < 1e-6
    # at its knots, the spline's density is the exponential of the net's output, but for the norm
    last = anywhere(1, count).repeat(ANGLES, 1)
    last[:, -1] = torch.arange(ANGLES, dtype=torch.float64) * (2 * torch.pi / ANGLES) - torch.pi
    plain, warm = (net.log_prob(tokens, atoms, last, warmth=Warmth((w,))) for w in (1.0, warmth))
    likely = plain > plain.max() - 6
    off = (warm - plain / warmth)[likely]
    assert off.max() - off.min() < 1e-4
    if warmth != 1:
        assert (warm - plain)[likely].max() - (warm - plain)[likely].min() > 0.5


MIXTURE = Warmth((1.0, 1.5, 3.0), (0.5, 0.3, 0.2))


@torch.no_grad()
def test_the_density_of_a_mixture_is_the_mean_of_its_parts_and_that_of_its_samples():
    net, tokens, atoms = parts()
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(400, len(tokens.torsion_energy), generator=generator, dtype=torch.float64)
    pick = torch.rand(400, generator=generator, dtype=torch.float64)
    tau, log_prob = net.sample(tokens, atoms, uniform, warmth=MIXTURE, pick=pick)
    assert (net.log_prob(tokens, atoms, tau, warmth=MIXTURE) - log_prob).abs().max() < 1e-6
    parts_of_it = [net.log_prob(tokens, atoms, tau, warmth=Warmth((t,))).exp() for t in MIXTURE.temperatures]
    mean = sum(share * p for share, p in zip(MIXTURE.shares, parts_of_it, strict=True))
    assert (mean.log() - log_prob).abs().max() < 1e-6


@torch.no_grad()
def test_each_draw_of_a_mixture_is_made_at_the_temperature_that_was_picked_in_the_measure_of_the_shares():
    net, tokens, atoms = parts()
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(3000, len(tokens.torsion_energy), generator=generator, dtype=torch.float64)
    pick = torch.rand(3000, generator=generator, dtype=torch.float64)
    tau, log_prob = net.sample(tokens, atoms, uniform, warmth=MIXTURE, pick=pick)
    alone = [net.sample(tokens, atoms, uniform, warmth=Warmth((t,)))[0] for t in MIXTURE.temperatures]
    same = torch.stack([(tau == a).all(-1) for a in alone])
    assert same.sum(0).min() == same.sum(0).max() == 1
    shares = same.double().mean(1)
    sigma = torch.tensor(MIXTURE.shares).mul(1 - torch.tensor(MIXTURE.shares)).div(3000).sqrt()
    assert ((shares - torch.tensor(MIXTURE.shares)).abs() < 4 * sigma).all()
    # E_q[p / q] = 1 of any density p that the mixture covers: each part's own
    for t in MIXTURE.temperatures:
        ratio = (net.log_prob(tokens, atoms, tau, warmth=Warmth((t,))) - log_prob).exp()
        assert (ratio.mean() - 1).abs() < 4 * ratio.std() / 3000**0.5


@torch.no_grad()
def test_the_first_torsion_is_normalised_and_so_is_the_second_given_it():
    net, tokens, atoms = parts()
    count = tokens.torsion_energy.shape[0]
    grid = torch.linspace(-torch.pi, torch.pi, 2001, dtype=torch.float64)[:-1]
    base = anywhere(1, count).expand(2000, -1)
    # p(last | rest) integrates to 1, whatever the rest: the sum over one torsion of the whole is p(rest)
    last = base.clone()
    last[:, -1] = grid
    whole = net.log_prob(tokens, atoms, last)
    shorter = replace(tokens, torsion_real=tokens.torsion_real & (torch.arange(count) < count - 1))
    rest = net.log_prob(shorter, atoms, last)
    assert (rest - rest[0]).abs().max() < 1e-12
    total = (whole - rest).exp().mean() * 2 * torch.pi
    assert total.item() == pytest.approx(1.0, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("sequence", ["AA", "HM"])
def test_untrained_it_is_the_boltzmann_weight_of_each_torsions_own_terms(sequence):
    """The bonded energy of the prepared geometry with one bond turned, which the tokens' tables never saw."""
    torch.manual_seed(0)
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    flow = Internal(SMALL).double()
    tokens = tokens_of(molecule, chart, torch.float64)
    atoms = flow.encoder(tokens)
    bonded = Bonded(molecule)
    count = chart.torsions
    angle = torch.linspace(-torch.pi, torch.pi, 361, dtype=torch.float64)[:-1]
    for t, place in enumerate(chart.place_of_torsion.tolist()):
        internal = chart.prepared.expand(360, -1, -1).clone()
        internal[:, place, 2] = angle
        energy = bonded(chart.cartesian(internal))
        tau = torch.zeros(360, count, dtype=torch.float64)
        tau[:, t] = angle
        found = flow.torsion.log_prob(tokens, atoms, tau)
        excess = found + energy
        excess = excess - (excess * torch.softmax(-energy, 0)).sum()
        likely = energy < energy.min() + 4
        assert excess[likely].abs().max() < 0.12  # a spline through 72 angles
        assert excess.min() > -0.2  # where the force field all but forbids it, the density has a floor


@torch.no_grad()
def test_untrained_samples_follow_that_weight():
    torch.manual_seed(0)
    molecule, chart = molecule_of(SEQUENCE), chart_of(SEQUENCE)
    flow = Internal(SMALL).double()
    tokens = tokens_of(molecule, chart, torch.float64)
    uniform = torch.rand(4000, chart.torsions, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tau, _ = flow.torsion.sample(tokens, flow.encoder(tokens), uniform)
    bonded = Bonded(molecule)
    angle = torch.linspace(-torch.pi, torch.pi, 1441, dtype=torch.float64)
    structured = 0
    for t, place in enumerate(chart.place_of_torsion.tolist()):
        internal = chart.prepared.expand(1441, -1, -1).clone()
        internal[:, place, 2] = angle
        weight = torch.softmax(-bonded(chart.cartesian(internal)), 0)
        cdf = torch.cumulative_trapezoid(weight, angle)
        cdf = torch.cat([torch.zeros(1).double(), cdf]) / cdf[-1]
        p = stats.kstest(tau[:, t].numpy(), np.interp, (angle.numpy(), cdf.numpy())).pvalue
        assert p > 1e-3
        structured += stats.kstest(tau[:, t].numpy(), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue < 1e-6
    assert structured >= 2


def test_kT_scales_the_weight():
    molecule, chart = molecule_of(SEQUENCE), chart_of(SEQUENCE)
    hot, cold = (Tokens.of(molecule, chart, t).torsion_energy for t in (620.0, 310.0))
    assert torch.allclose(cold, 2 * hot, atol=1e-4)
    assert units.kT(620.0) == pytest.approx(2 * units.kT(310.0))


def test_sampling_is_differentiable():
    net, tokens, atoms = parts()
    uniform = torch.rand(20, len(tokens.torsion_energy), generator=torch.Generator().manual_seed(0)).double()

    def loss():
        tau, log_prob = net.sample(tokens, atoms, uniform)
        return (torch.cos(tau).sum() + log_prob.sum()) / len(tau)

    net.zero_grad()
    loss().backward()
    weight = net.tell[0].weight
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    k = weight.grad.abs().flatten().argmax()
    h = 1e-6
    with torch.no_grad():
        weight.view(-1)[k] += h
        up = loss()
        weight.view(-1)[k] -= 2 * h
        down = loss()
    assert weight.grad.view(-1)[k].item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("warmth", [AS_TRAINED, MIXTURE])
@pytest.mark.parametrize("kept", [1, 3])
def test_on_a_stump_the_rest_is_drawn_from_its_density_given_the_stump(warmth, kept):
    net, tokens, atoms = parts()
    count, generator = len(tokens.torsion_energy), torch.Generator().manual_seed(0)
    uniform = torch.rand(40, count, generator=generator, dtype=torch.float64)
    pick = torch.rand(40, generator=generator, dtype=torch.float64)
    whole, _ = net.sample(tokens, atoms, uniform, warmth=warmth, pick=pick)
    stump = Stump(whole[:, :kept], torch.arange(40))
    again, log_prob = net.sample(tokens, atoms, uniform[:, kept:], warmth=warmth, pick=pick, stump=stump)
    torch.testing.assert_close(again, whole)
    assert (net.log_prob(tokens, atoms, again, warmth=warmth, kept=kept) - log_prob).abs().max() < 1e-6
    rows = torch.tensor([3, 3, 0, 5])
    some, _ = net.sample(
        tokens, atoms, uniform[:4, kept:], warmth=warmth, pick=pick[:4], stump=Stump(whole[:8, :kept], rows)
    )
    assert torch.equal(some[:, :kept], whole[rows, :kept])
    assert (some[0, kept:] != some[1, kept:]).all()


@torch.no_grad()
def test_the_density_of_the_rest_and_of_the_stump_make_up_the_whole():
    net, tokens, atoms = parts()
    count = len(tokens.torsion_energy)
    tau = anywhere(50, count)
    for kept in range(count):
        first = replace(tokens, torsion_real=tokens.torsion_real & (torch.arange(count) < kept))
        parted = net.log_prob(first, atoms, tau) + net.log_prob(tokens, atoms, tau, kept=kept)
        torch.testing.assert_close(parted, net.log_prob(tokens, atoms, tau))
