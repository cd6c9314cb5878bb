"""The closed form of the pairs' curvature is that of differences, coordinate by coordinate."""

from dataclasses import replace

import pytest
import torch

from timewarp import units
from timewarp.flow.curvature import Curvature
from timewarp.flow.pair_tables import CLOSEST, pair_tables
from timewarp.flow.swings import Swings

from .molecules import chart_of, molecule_of
from .test_response import conformers

H = 1e-4


def pairs_energy(molecule, chart, x):
    """Lennard-Jones, Coulomb and generalized Born at the radii of the prepared structure, pair by pair."""
    order = chart.tree.order
    tables = pair_tables(molecule, order, units.kT(310.0))
    i, j = torch.triu_indices(molecule.atoms, molecule.atoms, 1)
    sigma6, epsilon, charge, born, reach = (t[i, j] for t in tables)
    placed = x[:, order]
    r2 = (placed[:, i] - placed[:, j]).square().sum(-1)
    assert r2.min() > CLOSEST
    s6 = sigma6 / r2**3
    screened = born / (r2 + reach * torch.exp(-r2 / (4 * reach))).sqrt()
    return (epsilon * (s6 * s6 - s6) + charge / r2.sqrt() - screened).sum(1)


@pytest.mark.parametrize("sequence", ["AA", "GP", "HS"])
def test_it_is_the_curvature_of_the_pairs_by_differences(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    made = Curvature(molecule, chart, 310.0)
    made.swings = Swings.of((), made.body > 0)  # what closes a ring is a bonded term: tests/flow/test_closing.py
    tau = conformers(2, sequence=sequence)
    z = 0.3 * torch.randn(2, chart.stiffs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    internal = chart.join(tau, z)
    found = made(chart.cartesian(internal))
    assert found.shape == (2, len(made.rows), len(made.rows))
    torch.testing.assert_close(found, found.mT)
    rng = torch.Generator().manual_seed(1)
    where = chart.stiff.nonzero()
    count = len(made.rows)
    pairs = [(k, k) for k in range(0, count, 3)] + torch.randint(count, (60, 2), generator=rng).tolist()
    scale = found.abs().amax()
    puckered = torch.isin(where[made.rows][:, 0], chart.puckers.amplitudes) & (where[made.rows][:, 1] == 2)
    for a, b in pairs:
        if puckered[a] or puckered[b]:
            continue

        def at(s, t, a=a, b=b):
            moved = internal.clone()
            for k, size in ((a, s), (b, t)):
                place, kind = where[made.rows[k]]
                moved[:, place, kind] += size * H
            return pairs_energy(molecule, chart, chart.cartesian(moved))

        numeric = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / (4 * H * H)
        assert (found[:, a, b] - numeric).abs().max() < 1e-4 * scale, (a, b)


def test_rows_are_bends_then_dihedrals():
    chart = chart_of("AA")
    kinds = chart.stiff.nonzero()[:, 1][Curvature(molecule_of("AA"), chart, 310.0).rows]
    assert kinds.tolist() == sorted(kinds.tolist())
    assert set(kinds.tolist()) == {1, 2}
    assert len(kinds) == int((chart.stiff[:, 1:]).sum())


def test_it_is_that_of_no_solvent_where_there_is_none():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    x = molecule.reference[None]
    bare = replace(molecule, forcefield=replace(molecule.forcefield, born=None))
    with_, without = (Curvature(m, chart, 310.0)(x) for m in (molecule, bare))
    assert (with_ - without).abs().max() > 1.0


def test_what_is_not_finite_is_zero():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    x = molecule.reference.expand(3, -1, -1).clone()
    x[1, 4] = torch.nan
    found = Curvature(molecule, chart, 310.0)(x)
    assert found.isfinite().all()
    assert not found[1].any()
    assert torch.equal(found[0], found[2])
    assert found[0].any()


def test_an_empty_batch_is_an_empty_batch():
    made = Curvature(molecule_of("AA"), chart_of("AA"), 310.0)
    assert made(molecule_of("AA").reference[None][:0]).shape == (0, len(made.rows), len(made.rows))
