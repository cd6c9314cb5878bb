"""One torsion anew: a law of its angle that the other torsions decide, and the chain on it is exact."""

import math

import pytest
import torch
from scipy import stats

from timewarp.flow.circular import Circular
from timewarp.flow.curvature import Curvature
from timewarp.flow.internal import InternalProposal
from timewarp.flow.response import Response
from timewarp.flow.stiff import Stiff
from timewarp.flow.turning import FLOOR, Turning
from timewarp.kernel import Regrowing, run
from timewarp.mcmc import Regrowth
from timewarp.state import State

from .molecules import chart_of, flow_of, molecule_of, proposal_of, tokens_of
from .test_response import conformers

DOUBLE = torch.float64
KAPPA = 3.0  # of the known law of each torsion


def turning(sequence="GP"):
    return Turning(proposal_of(molecule_of(sequence), chart_of(sequence), flow_of(DOUBLE), DOUBLE))


@pytest.mark.parametrize("sequence", ["AA", "GP"])
def test_what_is_drawn_is_found_again_and_the_other_torsions_stay(sequence):
    made, present, rows = turning(sequence), conformers(4, sequence=sequence), torch.arange(12) % 4
    assert isinstance(made, Regrowing)
    for kept in range(1, made.parts + 1):
        drawn = made.regrown(present, kept, rows, torch.Generator().manual_seed(kept))
        others = torch.arange(made.parts) != kept - 1
        assert torch.equal(drawn.torsions[:, others], present[rows][:, others])
        assert (drawn.torsions[:, ~others] != present[rows][:, ~others]).all()
        at = made.placed(drawn, torch.zeros(12, made.noises, dtype=DOUBLE))
        again, noise = made.given(at.positions, kept)
        assert (again.log_prob - drawn.log_prob).abs().max() < 1e-6
        assert noise.abs().max() < 1e-5
        torch.testing.assert_close(made.torsions(at.positions), drawn.torsions)


def test_the_law_looks_at_the_others_alone_and_forbids_no_angle():
    made, tau = turning("AA"), conformers(3)
    for number in range(made.parts):
        law = made.law(tau, number)
        turned = tau.clone()
        turned[:, number] = torch.tensor([0.1, -2.0, 3.0], dtype=DOUBLE)
        assert torch.equal(made.law(turned, number), law)
        everywhere = torch.linspace(-3.1, 3.1, 50, dtype=DOUBLE).expand(3, -1)
        density = Circular(law[:, None].expand(-1, 50, -1)).log_prob(everywhere)
        assert density.min() > math.log(0.5 * FLOOR / (2 * math.pi))
    other = tau.clone()
    other[:, 0] += 2.0
    assert (made.law(other, 1) - made.law(tau, 1)).abs().max() > 1e-3


def test_angles_of_low_energy_are_drawn_more_often():
    made, tau = turning("AA"), conformers(8, keep=100)
    rows, rng = torch.arange(8).repeat(20), torch.Generator().manual_seed(0)
    for number in (2, 3):
        drawn = made.regrown(tau, number + 1, rows, rng).torsions
        anyhow = drawn.clone()
        anyhow[:, number] = 2 * math.pi * torch.rand(len(rows), generator=rng, dtype=DOUBLE) - math.pi
        low, high = (made.proposal.stiff.response.value(t, made.chart.start(t)).median() for t in (drawn, anyhow))
        assert low < high - 2


class Known:
    """U/kT of a law known in the chart of a molecule: von Mises torsions, normal stiff coordinates about them."""

    def __init__(self, chart):
        self.chart = chart

    def __call__(self, positions):
        torsions, stiff, log_det = self.chart.forward(positions)
        centred = stiff - 0.5 * torch.cos(torsions[..., :1])
        return -KAPPA * torch.cos(torsions - 1).sum(-1) + 0.5 * centred.square().sum(-1) - log_det


class Halved(Turning):
    """All is weighed by the root of the law that it is drawn from."""

    def regrown(self, present, kept, rows, rng):
        found = super().regrown(present, kept, rows, rng)
        return found._replace(log_prob=0.5 * found.log_prob)

    def given(self, positions, kept=1):
        found, noise = super().given(positions, kept)
        return found._replace(log_prob=0.5 * found.log_prob), noise


class Elsewhere(Turning):
    """The law of another angle than that which is drawn."""

    def given(self, positions, kept=1):
        found, noise = super().given(positions, kept)
        return found._replace(log_prob=super().given(positions, kept % self.parts + 1)[0].log_prob), noise


def invariance(kind, steps=10, chains=700):
    """p-value of: chains of GG that start in a known law are still in it."""
    molecule, chart, rng = molecule_of("GG"), chart_of("GG"), torch.Generator().manual_seed(0)
    energy = Known(chart)
    stiff = Stiff(chart, Response(chart, energy, steps=1), Curvature(molecule, chart, 310.0))
    made = kind(InternalProposal(flow_of(DOUBLE), tokens_of(molecule, chart, DOUBLE), stiff))
    torsions = torch.as_tensor(stats.vonmises(KAPPA).rvs((chains, chart.torsions), random_state=0)) + 1
    stiffs = torch.randn(chains, chart.stiffs, generator=rng, dtype=DOUBLE) + 0.5 * torch.cos(torsions[:, :1])
    kernel = Regrowth(energy, made, 0, 3, particles=2)
    state, rates = kernel.init(State.at(chart.inverse(torsions, stiffs)[0], 0)), []
    for state, info in run(kernel, state, steps, rng):  # noqa: B020, B007
        rates.append(float(info["accepted"].double().mean()))
    torsions, stiffs, _ = chart.forward(state.state.positions)
    stiffs = stiffs - 0.5 * torch.cos(torsions[:, :1])
    turned = (torch.remainder(torsions - 1 + math.pi, 2 * math.pi) - math.pi).numpy()
    p = [stats.kstest(turned[:, k], stats.vonmises(KAPPA).cdf).pvalue for k in range(turned.shape[1])]
    p += [stats.kstest(stiffs[:, k].numpy(), "norm").pvalue for k in range(stiffs.shape[1])]
    return min(1.0, len(p) * min(p)), sum(rates) / len(rates)


def test_it_leaves_a_known_law_invariant():
    p, rate = invariance(Turning)
    assert rate > 0.1
    assert p > 0.01


@pytest.mark.parametrize("wrong", [Halved, Elsewhere])
def test_a_wrong_weight_is_seen(wrong):
    assert invariance(wrong)[0] < 1e-6
