"""The bonded terms that close a ring: their slopes and curvature are those of differences, at any phase."""

import pytest
import torch

from timewarp import units
from timewarp.energy import Bonded
from timewarp.flow.curvature import Curvature
from timewarp.flow.geometry import angle, distance

from .molecules import chart_of, molecule_of


def geometry(sequence, seed=0):
    """(chart, curvature, its ring, curled internal coordinates)."""
    chart, molecule = chart_of(sequence), molecule_of(sequence)
    rng = torch.Generator().manual_seed(seed)
    tau = 6 * torch.rand(1, chart.torsions, generator=rng, dtype=torch.float64) - 3
    z = 0.3 * torch.randn(1, chart.stiffs, generator=rng, dtype=torch.float64)
    curvature = Curvature(molecule, chart, 310.0)
    return chart, curvature, curvature.swings.rings[0], chart.puckers.curled(chart.join(tau, z))


def rows_by_differences(chart, curvature, curled, what, h=1e-6):
    """d what / dq of each row, the amplitude among them."""
    found = []
    for place, kind in zip(curvature.place.tolist(), curvature.kind.tolist(), strict=True):
        both = []
        for side in (1, -1):
            moved = curled.clone()
            moved[0, place, kind] += side * h
            both.append(what(chart.cartesian(chart.puckers.uncurled(moved))[:, chart.tree.order]))
        found.append((both[0] - both[1]) / (2 * h))
    return torch.stack(found)


@pytest.mark.parametrize("sequence", ["PS", "APS"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_curvature_is_that_of_the_slopes_of_bond_and_angles(sequence, seed):
    chart, curvature, ring, curled = geometry(sequence, seed)
    x = chart.cartesian(chart.puckers.uncurled(curled))[:, chart.tree.order]
    rates = ring.stretched(x, curvature._rates(x)[1])
    found = ring.closing(x, rates)[0]

    def terms(x):
        bond = distance(*x[0, ring.ends])
        return torch.cat([bond[None], angle(*x[0, ring.angles].unbind(1))])

    slopes = rows_by_differences(chart, curvature, curled, terms)
    way = torch.nn.functional.normalize(x[0, ring.ends[1]] - x[0, ring.ends[0]], dim=-1)
    others = torch.nn.functional.normalize(x[0, ring.others[:, 1]] - x[0, ring.others[:, 0]], dim=-1)
    shared = ring.stiffness / (1 + ((others @ way).square() * ring.compliance).sum())
    stiffness = torch.cat([shared[None], ring.bending])
    torch.testing.assert_close(found, (slopes * stiffness) @ slopes.T, rtol=1e-5, atol=1e-4)
    assert len(ring.angles) == 6
    assert found[ring.row, ring.row] > 1.0


def test_the_stiffness_is_that_of_the_force_field_and_is_shared_by_the_ring():
    chart, _, ring, _ = geometry("APS")
    ff = molecule_of("APS").forcefield
    pairs = chart.back[ff.bond_index].sort(1).values
    closing = (pairs == ring.ends.sort().values).all(1)
    assert closing.sum() == 1
    assert ring.stiffness == pytest.approx(float(ff.bond_stiffness[closing]) / units.kT(310.0))
    assert all((pairs == bond.sort().values).all(1).sum() == 1 for bond in ring.others)
    assert ((ring.compliance > 0.3) & (ring.compliance < 3.0)).all()


@pytest.mark.parametrize("sequence", ["PS", "AP"])
def test_what_is_left_of_the_bonded_curvature_changes_less_with_the_phase(sequence):
    """The spread over phases of the Hessian of the bonded energy, with and without the closing terms."""
    chart, molecule = chart_of(sequence), molecule_of(sequence)
    bonded, curvature = Bonded(molecule), Curvature(molecule_of(sequence), chart, 310.0)
    ring = curvature.swings.rings[0]
    number = chart.place_of_torsion.tolist().index(int(chart.puckers.phases[0]))
    rows = [int(ring.row)]
    with_it, without = [], []
    for phase in (-2.0, -1.0, 0.0, 1.0, 2.0):
        tau = torch.zeros(1, chart.torsions, dtype=torch.float64)
        tau[0, number] = phase
        internal = chart.puckers.curled(chart.join(tau, torch.zeros(1, chart.stiffs, dtype=torch.float64)))

        def energy(turns, internal=internal):
            moved = internal.clone()
            for row, turn in zip(rows, turns, strict=True):
                moved[0, int(curvature.place[row]), 2] = moved[0, int(curvature.place[row]), 2] + turn
            return bonded(chart.cartesian(chart.puckers.uncurled(moved)))[0]

        hessian = torch.autograd.functional.hessian(energy, torch.zeros(len(rows), dtype=torch.float64))
        x = chart.cartesian(chart.puckers.uncurled(internal))[:, chart.tree.order]
        rates = ring.stretched(x, curvature._rates(x)[1])
        without.append(hessian)
        with_it.append(hessian - ring.closing(x, rates)[0][rows][:, rows])
    spread = [torch.stack(found).std(0).norm() for found in (without, with_it)]
    assert spread[1] < 0.8 * spread[0]
