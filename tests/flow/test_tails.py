"""Johnson's S_U in place of N(0, 1): its density, its inverse and its slope; and which coordinates have it."""

import numpy as np
import pytest
import scipy.stats
import torch

from timewarp.flow.stiff import standard_normal
from timewarp.flow.tails import LEVER, RING, lengthened, shortened, slope_before

from .molecules import chart_of, molecule_of, stiff_of
from .test_response import conformers

WHICH = torch.tensor([1, 3])
SHAPES = torch.tensor([LEVER, RING], dtype=torch.float64)


def levers_of(made):
    return made.long[made.shapes == LEVER]


def noise(count, n=5, seed=0, wide=1.0):
    return wide * torch.randn(count, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_density_is_that_of_johnsons_s_u():
    e = noise(200, wide=2.0)
    long, lengthening = lengthened(e, WHICH, SHAPES)
    law = scipy.stats.johnsonsu(a=0, b=SHAPES.numpy(), scale=SHAPES.numpy())
    others = [0, 2, 4]
    expected = law.logpdf(long[:, WHICH]).sum(1) + standard_normal(e[:, others]).numpy()
    np.testing.assert_allclose((standard_normal(e) - lengthening).numpy(), expected, rtol=1e-10)
    assert torch.equal(long[:, others], e[:, others])


@pytest.mark.parametrize(("shape", "near"), [(LEVER, 0.05), (RING, 0.15)])
def test_near_its_middle_it_is_normal_and_far_out_it_is_not(shape, near):
    law = scipy.stats.johnsonsu(a=0, b=shape, scale=shape)
    assert abs(law.logpdf(0) - scipy.stats.norm.logpdf(0)) < 1e-12
    assert law.logpdf(1) == pytest.approx(scipy.stats.norm.logpdf(1), abs=near)
    assert law.logpdf(6) > scipy.stats.norm.logpdf(6) + 7


def test_it_can_be_undone():
    e = noise(300, wide=3.0)
    long, there = lengthened(e, WHICH, SHAPES)
    back, again = shortened(long, WHICH, SHAPES)
    torch.testing.assert_close(back, e, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(there, again, rtol=1e-10, atol=1e-10)
    far = torch.full((1, 5), 1e4, dtype=torch.float64)
    assert shortened(far, WHICH, SHAPES)[1].isfinite().all()


def test_the_volume_is_that_of_differences():
    e, h = noise(4), 1e-5
    there = lengthened(e, WHICH, SHAPES)[1]
    for k in range(4):
        steps = h * torch.eye(5, dtype=torch.float64)
        jacobian = (lengthened(e[k] + steps, WHICH, SHAPES)[0] - lengthened(e[k] - steps, WHICH, SHAPES)[0]) / (2 * h)
        assert float(there[k]) == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), abs=1e-8)


def test_a_slope_is_carried_back_as_differences_say():
    e, h, metric = noise(3), 1e-5, torch.arange(1.0, 6.0, dtype=torch.float64)

    def value(e):
        long, there = lengthened(e, WHICH, SHAPES)
        return 0.5 * (metric * long.square()).sum(1) - there

    slope = slope_before(metric * lengthened(e, WHICH, SHAPES)[0], e, WHICH, SHAPES)
    for k in range(5):
        step = h * torch.eye(5, dtype=torch.float64)[k]
        numeric = (value(e + step) - value(e - step)) / (2 * h)
        torch.testing.assert_close(slope[:, k], numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("sequence", "bonds"), [("AA", 1), ("AVSA", 3), ("GP", 1)])
def test_the_turns_of_peptide_bonds_have_long_tails(sequence, bonds):
    """One coordinate a bond, that which turns all of what follows it."""
    molecule, chart = molecule_of(sequence), chart_of(sequence, torch.float64)
    made = stiff_of(molecule, chart, torch.float64)
    elements, order = molecule.elements, chart.tree.order
    axes = set()
    for k in levers_of(made).tolist():
        place = int(made.curvature.place[k])
        one, two = (int(order[chart.refs[place, j]]) for j in (0, 1))
        axes.add((int(elements[two]), int(elements[one])))
        assert int(made.curvature.kind[k]) == 2
    assert len(levers_of(made)) == bonds
    assert axes == {(6, 7)}


def test_rings_have_the_longest_tails():
    """Their amplitude, and the dihedrals that turn with it; nothing of a molecule without them has."""
    made = stiff_of(molecule_of("GP"), chart_of("GP", torch.float64), torch.float64)
    rings = made.long[made.shapes == RING]
    places = set(made.curvature.place[rings].tolist())
    puckers = made.chart.puckers
    assert places == set(puckers.amplitudes.tolist()) | set(puckers.hung.tolist())
    assert len(puckers.hung) >= 2
    assert not (stiff_of(molecule_of("AA"), chart_of("AA", torch.float64), torch.float64).shapes == RING).any()


def test_far_turns_of_a_peptide_bond_are_drawn_now_and_then():
    """The same geometries, by the law with and without long tails: the volume of the map is all that differs."""
    made = stiff_of(molecule_of("AA"), chart_of("AA", torch.float64), torch.float64)
    basin = made.at(conformers(2))
    e = torch.zeros(2, made.chart.stiffs, dtype=torch.float64)
    turn = int(made.soft[levers_of(made)[0]])
    e[:, turn] = LEVER * float(np.arcsinh(6.0 / LEVER))  # six standard deviations of the quadratic form
    z, stretch = made.push(basin, e)
    made.long, made.shapes = made.long[:0], made.shapes[:0]
    plain, without = made.pull(basin, z)
    gain = (standard_normal(e) - stretch) - (standard_normal(plain) - without)
    assert float(plain[0, turn]) == pytest.approx(6.0, abs=1e-6)
    assert (gain > 7).all()


def test_the_slope_of_the_law_has_the_tails_in_it():
    """Far out along the turn of a peptide bond the energy's slope counts for as much more as the tail is longer."""
    made, h = stiff_of(molecule_of("AA"), chart_of("AA", torch.float64), torch.float64), 1e-4
    basin = made.at(conformers(4))
    e = torch.zeros(4, made.chart.stiffs, dtype=torch.float64)
    turn = int(made.soft[levers_of(made)[0]])
    e[:, turn] = torch.tensor([-2.5, -3.0, 3.0, 2.5], dtype=torch.float64)
    step = h * torch.eye(made.chart.stiffs, dtype=torch.float64)[turn]

    def value(e):
        found, stretch, _ = made.evaluate(basin, e)
        return found.energy + found.log_det - stretch

    numeric = (value(e + step) - value(e - step)) / (2 * h)
    slope = made.evaluate(basin, e)[2][:, turn]
    torch.testing.assert_close(slope, numeric, rtol=0.15, atol=0.1)
