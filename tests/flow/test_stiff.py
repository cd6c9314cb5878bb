"""Laws of p(z | tau): a map of noise that can be undone, its volume, and the energy that it is made after."""

import copy
import functools
import math

import pytest
import torch

from timewarp.assemble.peptide import Peptide
from timewarp.energy import Potential
from timewarp.flow import basin, stiff
from timewarp.flow.chart import InternalChart
from timewarp.flow.stiff import standard_normal

from .molecules import chart_of, molecule_of, stiff_of
from .test_response import conformers

SEQUENCE = "AA"
CROWDED = "RA"  # whose ends meet: the peptide bond turns against a wall


def law(sequence=SEQUENCE, dtype=torch.float64, steps=3):
    return stiff_of(molecule_of(sequence), chart_of(sequence, dtype), dtype, steps)


def noise(of, count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, of.chart.stiffs, generator=rng, dtype=torch.float64).to(of.chart.dtype)


def far_out(made, count, seed=0):
    """Noise whose dihedrals lie so far out that ends meet, and bends have to give way."""
    e = noise(made, count, seed)
    e[:, made.soft[made.bends :]] *= 2.5
    return e


@pytest.mark.parametrize(("sequence", "draw"), [(SEQUENCE, noise), ("GP", noise), (CROWDED, far_out), ("GP", far_out)])
def test_pull_undoes_push(sequence, draw):
    made = law(sequence)
    basin, e = made.at(conformers(60, sequence=sequence)), draw(made, 60)
    z, there = made.push(basin, e)
    back, again = made.pull(basin, z)
    same = (back - e).abs().amax(1) < 1e-6
    assert same.sum() >= (60 if draw is noise else 59)  # of a saddle either side may be taken
    torch.testing.assert_close(there[same], again[same], rtol=0, atol=1e-6)
    assert (z - basin.mean - e).abs().max() > 0.1  # it is not the identity


@pytest.mark.parametrize("spoilt", ["bonds", "bends"])
def test_a_strained_molecule_whose_curvature_has_no_root_keeps_the_laws(spoilt):
    """Disulfide rings did this: most conformers of the chart were in clashes."""
    chart = copy.copy(chart_of(SEQUENCE))
    sound, chart.rest = chart.rest.double(), chart.rest.double().clone()
    bonds = (chart.stiff.nonzero()[:, 1] == 0).nonzero()[:, 0]
    if spoilt == "bonds":
        chart.rest[bonds[2], bonds[2]] = -1.0
    else:  # so strongly coupled to a bond that what is left of a bend has a negative curvature
        soft = int((chart.stiff.nonzero()[:, 1] == 1).nonzero()[0, 0])
        far = 3 * (sound[bonds[2], bonds[2]] * chart.curvature[soft, soft]).sqrt()
        chart.rest[bonds[2], soft] = chart.rest[soft, bonds[2]] = far
    made = stiff_of(molecule_of(SEQUENCE), chart, torch.float64, 3)
    basin, e = made.at(conformers(20)), noise(made, 20)
    z, there = made.push(basin, e)
    back, again = made.pull(basin, z)
    assert z.isfinite().all()
    assert there.isfinite().all()
    assert (back - e).abs().max() < 1e-7
    torch.testing.assert_close(there, again, rtol=0, atol=1e-10)


def test_bends_give_way_as_far_as_dihedrals_ask(monkeypatch):
    made = law(CROWDED)
    basin = made.at(conformers(60, sequence=CROWDED))
    e = far_out(made, 60)
    dihedrals = made.soft[made.bends :]
    e[:, torch.ones(made.chart.stiffs).bool().index_fill(0, dihedrals, False)] = 0.0

    def left():
        """Length of the Newton step that bonds and bends would still take."""
        stiff = made.push(basin, e)[0]
        slope = made.response.slope(basin.torsions, stiff)[1]
        return made.whitened(basin.lower, slope, made.bends).norm(dim=1)

    found = left()
    monkeypatch.setattr(stiff, "FAR", math.inf)
    alone = left()
    assert (alone > 2.0).sum() > 5
    assert found[alone > 2.0].median() < 0.25 * alone[alone > 2.0].median()
    assert torch.equal(found[alone < 0.1], alone[alone < 0.1])


@pytest.mark.parametrize("draw", [noise, far_out])
def test_the_log_det_is_that_of_differences(draw):
    """Of the whole map, Newton steps and all; the density of z is N(e) / |dz/de|."""
    made = law()
    tau, h = conformers(3), 1e-4
    e, n = draw(made, 3, 1), made.chart.stiffs
    for k in range(3):
        basin = made.at(tau[k : k + 1].expand(2 * n, -1))
        steps = h * torch.eye(n, dtype=torch.float64)
        z, log_det = made.push(basin, torch.cat([e[k] + steps, e[k] - steps]))
        jacobian = (z[:n] - z[n:]) / (2 * h)
        assert log_det[0].item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-4)


def test_the_volume_would_be_wrong_without_the_curvature():
    """What the test above would see, were the determinant that of another conformation."""
    made = law()
    basin = made.at(conformers(6))
    log_det = made.push(basin, noise(made, 6))[1]
    assert log_det.std() > 0.05


def test_it_is_nearer_to_the_energy_than_a_gaussian_about_the_same_geometry():
    """The spread of ln p(z | tau) + S at given torsions: the law against N(mu(tau), 1) in the chart's coordinates."""
    made, energy = law(), Potential(molecule_of(SEQUENCE), dtype=torch.float64)
    tau = conformers(6, keep=400).repeat_interleave(40, 0)
    basin, e = made.at(tau), noise(made, len(tau))

    def spread(z, log_q):
        x, log_det = made.chart.inverse(tau, z)
        weight = -energy(x) - log_det - log_q
        return weight.view(6, 40).std(1).median()

    z, stretch = made.push(basin, e)
    assert spread(z, standard_normal(e) - stretch) < 0.6 * spread(basin.mean + e, standard_normal(e))


def test_the_slope_is_nearly_that_of_differences():
    """Along the noise of bonds it is exact; along that of the others a Newton step's change is left out."""
    made, h = law(), 1e-4
    basin, e = made.at(conformers(4)), noise(made, 4, 2)
    along = noise(made, 4, 3)
    along[:, made.soft] = 0.0

    def value(e):
        found, stretch, _ = made.evaluate(basin, e)
        return found.energy + found.log_det - stretch

    slope = made.evaluate(basin, e)[2]
    numeric = (value(e + h * along) - value(e - h * along)) / (2 * h)
    torch.testing.assert_close((slope * along).sum(1), numeric, rtol=1e-4, atol=1e-4)
    along = noise(made, 4, 4)
    numeric = (value(e + h * along) - value(e - h * along)) / (2 * h)
    assert ((slope * along).sum(1) - numeric).norm() < 0.3 * numeric.norm()


def test_what_is_evaluated_is_where_it_is_pushed():
    made = law()
    basin, e = made.at(conformers(5)), noise(made, 5)
    found, stretch, _ = made.evaluate(basin, e)
    z, same = made.push(basin, e)
    positions, log_det = made.chart.inverse(basin.torsions, z)
    torch.testing.assert_close(found.positions, positions)
    torch.testing.assert_close(found.log_det, log_det)
    assert torch.equal(stretch, same)
    torch.testing.assert_close(found.energy, Potential(molecule_of(SEQUENCE), dtype=torch.float64)(positions))


def curvature_at(made, tau):
    return made.curvature(made.chart.inverse(tau, made.response(tau))[0])


def test_a_curvature_that_is_not_finite_gives_way_to_the_mean_one(monkeypatch):
    made = law()
    tau = conformers(2)
    bad = curvature_at(made, tau)
    bad[1] = torch.nan
    monkeypatch.setattr(made, "curvature", lambda x: bad[: len(x)].clone())
    monkeypatch.setattr(stiff, "NEAR", float("inf"))  # none goes on
    basin = made.at(tau)
    torch.testing.assert_close(basin.lower[0] @ basin.lower[0].T, bad[0] + made.alone)
    assert torch.equal(basin.lower[1], made.likely)
    e = noise(made, 2)
    back, _ = made.pull(basin, made.push(basin, e)[0])
    assert (back - e).abs().max() < 1e-8


def test_a_curvature_out_of_bounds_is_brought_back_in_its_own_directions(monkeypatch):
    """Relative to the mean curvature: below LOW it is LOW, above HIGH it grows by the logarithm, between it stays."""
    made = law()
    tau = conformers(1)
    values = torch.linspace(0.5, 2.5, len(made.usual), dtype=torch.float64)
    values[:3] = torch.tensor([-4.0, 0.01, 50.0])
    turn = torch.linalg.qr(torch.randn(values.shape * 2, generator=torch.Generator().manual_seed(1)).double())[0]
    mixed = made.likely @ (turn * values) @ turn.T @ made.likely.T
    monkeypatch.setattr(made, "curvature", lambda x: (mixed - made.alone).expand(len(x), -1, -1).clone())
    monkeypatch.setattr(stiff, "NEAR", float("inf"))
    lower = made.at(tau).lower[0]
    root = torch.linalg.inv(made.likely)
    found = torch.diagonal(turn.T @ root @ lower @ lower.T @ root.T @ turn)
    expected = values.clone()
    expected[:3] = torch.tensor([basin.LOW, basin.LOW, basin.HIGH * (1 + math.log(50.0 / basin.HIGH))])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_what_is_far_from_relaxed_goes_on_and_ends_lower():
    made, chart = law(), chart_of(SEQUENCE)
    tau = 6 * torch.rand(200, chart.torsions, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 3
    mean = made.response(tau)
    before, slope = made.response.slope(tau, mean)
    after, steep = made.response.slope(tau, made.at(tau).mean)
    assert (slope.norm(dim=1) > 3).sum() > 20
    assert (after <= before + 0.05).all()  # a short step is taken unseen
    assert steep.norm(dim=1).median() < 0.1 * slope.norm(dim=1).median()
    assert (before - after)[slope.norm(dim=1) > 3].median() > 1.0
    far = int((before - after).argmax())
    alone = made.at(tau[far : far + 1]).mean[0]
    assert (alone - made.at(tau).mean[far]).abs().max() < 1e-6  # of each by itself


def test_relaxed_geometries_are_at_rest():
    made, chart = law(), chart_of(SEQUENCE)
    tau = 6 * torch.rand(100, chart.torsions, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 3
    slope = made.response.slope(tau, made.relaxed(tau))[1].norm(dim=1)
    assert (slope < 1e-3).float().mean() > 0.9


def test_in_single_precision_it_is_the_same():
    made, rough = law(), law(dtype=torch.float32)
    tau, e = conformers(10), noise(law(), 10)
    (z, one), (w, two) = made.push(made.at(tau), e), rough.push(rough.at(tau.float()), e.float())
    assert (z - w).abs().median() < 1e-4
    assert (one - two).abs().max() < 1e-2


def test_a_saved_chart_gives_the_same_law():
    made, chart = law(), chart_of(SEQUENCE)
    again = InternalChart(molecule_of(SEQUENCE), whitening=chart.arrays(), dtype=torch.float64)
    tau, e = conformers(2), noise(made, 2)
    other = type(made)(again, made.response.on(again), made.curvature)
    torch.testing.assert_close(other.push(other.at(tau), e), made.push(made.at(tau), e))


def test_the_normal_density_is_that_of_scipys():
    e = torch.randn(4, 7, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(e).sum(1)
    torch.testing.assert_close(standard_normal(e), expected)
    assert standard_normal(e[:, :0]).tolist() == [0.0] * 4
    assert math.isclose(stiff.CAP, 4.0)


@functools.cache
def crowded():
    """(a law, a basin of torsions at which ends meet: two different widths along the first axis)."""
    peptide, rng = Peptide.of(molecule_of(CROWDED)), torch.Generator().manual_seed(0)
    tau = 6 * torch.rand(900, peptide.chart.torsions, generator=rng, dtype=torch.float64) - 3
    chart = InternalChart(molecule_of(CROWDED), whitening=peptide.chart.arrays(), dtype=torch.float64)
    made = stiff_of(molecule_of(CROWDED), chart, torch.float64, 2)
    basin = made.at(tau)
    widths = basin.widths[:, 0]
    found = widths.max(1).values / widths.min(1).values > 1.5
    return made, type(basin)(*(part[found] for part in basin))


def test_a_lopsided_law_keeps_its_laws():
    (made, basin), h = crowded(), 1e-4
    e, n = noise(made, len(basin.mean)), made.chart.stiffs
    assert len(e) > 15
    z, there = made.push(basin, e)
    back, again = made.pull(basin, z)
    torch.testing.assert_close(back, e, rtol=0, atol=1e-8)
    torch.testing.assert_close(again, there, rtol=0, atol=1e-8)
    plain = made.push(basin._replace(widths=torch.ones_like(basin.widths)), e)
    assert (plain[1] - there).abs().median() > 0.1
    steps = h * torch.eye(n, dtype=torch.float64)
    for k in range(3):
        one = type(basin)(*(part[k : k + 1].expand(2 * n, *part.shape[1:]) for part in basin))
        z, log_det = made.push(one, torch.cat([e[k] + steps, e[k] - steps]))
        jacobian = (z[:n] - z[n:]) / (2 * h)
        assert log_det[0].item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-3)


def test_two_widths_are_nearer_to_the_energy_than_one():
    """Along an axis from mu: relative entropy of the two-piece normal to exp(-S), and of N(0, 1)."""
    (made, basin), x = crowded(), torch.linspace(-5, 5, 101, dtype=torch.float64)
    bonds = torch.zeros(len(basin.mean), len(made.bonds), dtype=torch.float64)
    rise = torch.stack(
        [made.response.value(basin.torsions, made._placed(basin, bonds, t * basin.axes[:, 0])) for t in x], 1
    )
    target = torch.log_softmax(-rise.nan_to_num(torch.inf), 1)  # inside one another there is no energy
    for flipped, better in ((False, True), (True, False)):
        widths = basin.widths[:, :1].flip(-1) if flipped else basin.widths[:, :1]
        width = torch.where(x < 0, widths[..., 0], widths[..., 1])
        two = torch.log_softmax(-0.5 * (x / width).square(), 1)
        one = torch.log_softmax(-0.5 * x.square(), 0)
        gain = (target.exp() * (two - one)).sum(1)
        assert (gain.median() > 0.1) == better
        assert ((gain > 0).double().mean() > 0.8) == better
