"""Regions tile the map, populations and their errors are those of the numbers behind them."""

import numpy as np
import pytest

from timewarp.analysis.basins import REGIONS, populations, regions, states
from timewarp.analysis.ensemble import Ensemble
from timewarp.mcmc.ess import bulk_ess
from timewarp.units import kT


def region(phi, psi):
    return str(regions(*(None if v is None else np.radians([v]) for v in (phi, psi)))[0])


def test_known_conformations_have_their_letters():
    known = {(-60, -45): "A", (-60, -60): "A", (-120, 130): "B", (-150, 170): "B", (-150, -170): "B", (175, 175): "B"}
    known |= {(-70, 150): "P", (60, 45): "L", (70, -170): "E", (None, 150): "b", (None, -40): "a", (-70, None): "n"}
    known |= {(60, None): "l"}
    assert {angles: region(*angles) for angles in known} == known
    with pytest.raises(ValueError, match="neither"):
        regions(None, None)


def test_every_point_of_the_map_has_one_of_the_letters(rng):
    phi, psi = rng.uniform(-np.pi, np.pi, size=(2, 20000))
    found = regions(phi, psi)
    assert set(found) == set("ABPLE") <= set(REGIONS)
    turned = regions(np.angle(np.exp(1j * (phi + 2 * np.pi))), psi - 2 * np.pi)
    assert (turned == found).mean() > 0.999  # rounding on a border


def test_states_read_along_the_chain(peptide):
    topology, positions, _ = peptide("AA")
    ensemble = Ensemble.of(topology, positions[None, None])
    psi, phi = ensemble.angle("psi 1"), ensemble.angle("phi 2")
    assert states(ensemble)[0, 0] == str(regions(None, psi)[0, 0]) + str(regions(phi, None)[0, 0])


def test_a_cis_bond_is_marked_on_the_residue_behind_it():
    from timewarp.analysis.dihedrals import Dihedral

    table = tuple(Dihedral(kind, n, (0, 1, 2, 3)) for kind, n in (("psi", 1), ("omega", 1), ("phi", 2), ("psi", 2)))
    angles = np.radians([[[150, 180, -60, -45], [150, 10, -60, -45]]])
    ensemble = Ensemble(table, angles, (), np.zeros((1, 2, 0)))
    assert states(ensemble).tolist() == [["bA", "bcA"]]


def draw(rng, chains, frames, share=0.8):
    return np.where(rng.random((chains, frames)) < share, "A", "B")


def test_populations_and_free_energies_of_known_shares(rng):
    rows = populations(draw(rng, 8, 4000), 310.0, bulk_ess)
    assert [row.name for row in rows] == ["A", "B"]
    assert abs(rows[0].share - 0.8) < 4 * rows[0].error
    assert rows[0].free_energy == 0 == rows[0].free_energy_error
    assert abs(rows[1].free_energy - kT(310) * np.log(4)) < 4 * rows[1].free_energy_error
    assert rows[1].chains == 8


@pytest.mark.parametrize("chains", [1, 4])
def test_errors_cover_the_spread_of_repeated_runs(rng, chains):
    # frames come in blocks of ten: without the effective sample size errors would be three times too small
    runs = [populations(np.repeat(draw(rng, chains, 400 // chains), 10, axis=1), 310.0, bulk_ess) for _ in range(100)]
    shares = np.array([next(row.share for row in run if row.name == "B") for run in runs])
    errors = np.array([next(row.error for row in run if row.name == "B") for run in runs])
    assert 0.8 < np.median(errors) / shares.std() < 2
    energies = np.array([run[1].free_energy for run in runs])
    spread = np.median([run[1].free_energy_error for run in runs])
    assert 0.8 < spread / energies.std() < 2.5


def test_chains_that_disagree_have_large_errors():
    words = np.repeat([["A"], ["A"], ["B"], ["B"]], 1000, axis=1)
    rows = populations(words, 310.0)
    assert rows[0].error == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)
    assert rows[1].chains == 2


def test_short_runs_have_no_error_rather_than_a_wrong_one():
    rows = populations(np.array([["A"]]), 310.0, bulk_ess)
    assert rows[0].share == 1
    assert rows[0].error is None
    assert populations(np.full((2, 0), "A"), 310.0, bulk_ess) == []
