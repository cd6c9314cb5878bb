"""What is known before chains begin: walkers that meet the flow are thermal, and none that may matter is dropped."""

import pytest
import torch

from timewarp.assemble import exploration
from timewarp.assemble.energy import energy_of
from timewarp.assemble.exploration import FEWEST, Exploration
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.peptide import Peptide
from timewarp.flow.factored import FactoredInternal
from timewarp.mcmc import Annealed
from timewarp.md.system import prepare_sequence
from timewarp.resources import checkpoint_path
from timewarp.training.checkpoint import Checkpoint

SEQUENCE = "LK"


@pytest.fixture(scope="module")
def made():
    prepared = prepare_sequence(SEQUENCE)
    energy, molecule, _ = energy_of(prepared, 310.0)
    peptide = Peptide.of(molecule, potential=energy, seed=1)
    shipped = Checkpoint.load(checkpoint_path("2aa").with_suffix(""))
    rng = torch.Generator().manual_seed(1)
    return peptide, prepared, bound(load_flow(shipped), peptide), Exploration.walked(peptide, prepared, 10, rng)


def torsions_of(peptide, found):
    return peptide.chart.forward(found.positions)[0]


def test_the_free_energy_at_given_torsions_is_that_of_importance_sampling(made):
    """The mean weight of draws of the stiff coordinates, up to a constant, but for half a kT."""
    peptide, _, proposal, _ = made
    flow, rng = FactoredInternal(proposal), torch.Generator().manual_seed(2)
    given = flow.draw(150, rng)
    weights = Annealed(peptide.potential, flow, 0, 1).paths(given, 8, rng)[2] + given.log_prob
    apart = peptide.stiff.free_energy(given.torsions) + weights.logsumexp(0)
    inner = (apart - apart.median()).abs()
    assert inner.quantile(0.9) < 0.6
    assert (peptide.stiff.free_energy(given.torsions)).std() > 2


def test_walkers_that_meet_the_flow_are_thermal(made):
    """Their mean free energy is that of weighted draws; the walks alone end several kT above."""
    peptide, prepared, proposal, walked = made
    flow, rng = FactoredInternal(proposal), torch.Generator().manual_seed(3)
    given = flow.draw(300, rng)
    log_weight = Annealed(peptide.potential, flow, 0, 1).paths(given, 4, rng)[2].logsumexp(0)
    thermal = (torch.softmax(log_weight, 0) * peptide.stiff.free_energy(given.torsions)).sum()
    mingled = walked.mingled(peptide, prepared, proposal, rng)
    before, after = (peptide.stiff.free_energy(torsions_of(peptide, e)) - thermal for e in (walked, mingled))
    assert abs(after.mean()) < 4 * after.std() / len(after) ** 0.5 + 0.5
    assert before.mean() > after.mean() + 2
    assert len(mingled.words) == len(mingled.positions)


@pytest.mark.parametrize("high", [0.0, 30.0], ids=["low", "high"])
def test_walkers_where_the_flow_never_goes_stay_unless_hardly_any_mass_is_there(made, monkeypatch, high):
    peptide, prepared, proposal, walked = made
    inside = torsions_of(peptide, walked).cos() > 0
    which = int((inside.float().mean(0) - 0.35).abs().argmin())
    assert 0.1 < inside[:, which].float().mean() < 0.6

    class Blind(FactoredInternal):
        """It hardly ever proposes one half of a circle, and says so."""

        def draw(self, count, rng):
            given = super().draw(count, rng)
            return shifted(given, 200.0)

        def given(self, positions):
            given, noise = super().given(positions)
            return shifted(given, -200.0), noise

    def shifted(given, by):
        return given._replace(log_prob=given.log_prob + by * (given.torsions[:, which].cos() > 0))

    usual = peptide.stiff.free_energy
    monkeypatch.setattr(exploration, "FactoredInternal", Blind)
    monkeypatch.setattr(type(peptide.stiff), "free_energy", lambda _, t: usual(t) + high * (t[:, which].cos() > 0))
    monkeypatch.setattr(exploration, "MOST", 25.0)
    mingled = walked.mingled(peptide, prepared, proposal, torch.Generator().manual_seed(4))
    left = int((torsions_of(peptide, mingled)[:, which].cos() > 0).sum())
    if high:
        assert left == 0
    else:
        depth = usual(torsions_of(peptide, walked))
        low = inside[:, which] & (depth < depth[~inside[:, which]].median())
        assert left >= int(low.sum()) > 0


def test_where_the_flow_is_useless_all_walkers_stay(made, monkeypatch):
    peptide, prepared, proposal, walked = made

    class Useless(FactoredInternal):
        def draw(self, count, rng):
            given = super().draw(count, rng)
            return given._replace(log_prob=given.log_prob + 200.0)

    monkeypatch.setattr(exploration, "FactoredInternal", Useless)
    mingled = walked.mingled(peptide, prepared, proposal, torch.Generator().manual_seed(5))
    assert mingled is walked
    assert 0 < FEWEST < 1
