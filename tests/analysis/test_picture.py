"""Pictures of states: all that is to be seen is drawn, nearer atoms last, and a turned molecule looks the same."""

import re

import numpy as np
import pytest

from timewarp.analysis.gallery import pictures_panels, upgraded_panels
from timewarp.analysis.picture import SIZE, ball_and_stick


def circles(svg):
    return [
        tuple(map(float, m)) for m in re.findall(r'<circle cx="([\d.-]+)" cy="([\d.-]+)" r="([\d.]+)" fill="#[^f]', svg)
    ]


def test_all_heavy_atoms_and_the_hydrogens_on_nitrogen_are_in_the_picture(dipeptide):
    topology, positions = dipeptide
    balls = circles(ball_and_stick(topology, positions))
    heavy = sum(a.element.symbol != "H" for a in topology.atoms)
    assert len(balls) == heavy + 4  # three at the head, one on the amide
    assert all(0 <= x <= SIZE[0] and 0 <= y <= SIZE[1] for x, y, _ in balls)
    x, y, _ = np.array(balls).T
    assert max(np.ptp(x) / SIZE[0], np.ptp(y) / SIZE[1]) > 0.6


def test_it_does_not_depend_on_where_the_molecule_is_and_how_it_is_turned(dipeptide):
    topology, positions = dipeptide
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    plain = np.array(circles(ball_and_stick(topology, positions)))
    turned = np.array(circles(ball_and_stick(topology, positions @ turn + 3.0)))
    laid = np.array(circles(ball_and_stick(topology, positions @ turn - 1.0, like=positions)))
    assert np.abs(plain - turned).max() < 0.2
    assert np.abs(plain - laid).max() < 0.2
    mirrored = np.array(circles(ball_and_stick(topology, positions * [1, 1, -1], like=positions)))
    assert mirrored.shape == plain.shape
    assert np.abs(plain - mirrored).max() > 2  # the other hand is another molecule


def test_nearer_atoms_are_drawn_later_and_stronger(dipeptide):
    topology, positions = dipeptide
    svg = ball_and_stick(topology, positions)
    edges = [int(m[:2], 16) for m in re.findall(r'stroke="#([0-9a-f]{6})" stroke-width=".8"', svg)]
    assert edges == sorted(edges, reverse=True)
    assert edges[0] > edges[-1] + 40


def test_the_gallery_shows_the_files_that_are_there(peptide, tmp_path):
    _, _, pdb = peptide("AA")
    row = {"state": "bn", "share": 0.8, "first_seconds": 2.4, "first_step": 3, "potential_kj_per_mol": -459.2}
    rows = [row | {"file": pdb.name}, row | {"state": "an", "file": "absent.pdb"}]
    (_words, cards) = pictures_panels(rows, pdb.parent)
    assert cards.count("<figure>") == 1
    assert "bn: 80 % of the frames, found after 2 s (step 3)" in cards
    assert pictures_panels(rows, tmp_path) == []


@pytest.mark.parametrize("verdict", ["converged", "not converged"])
def test_what_exact_chains_found_is_said_with_its_verdict(verdict):
    row = {"state": "bn", "share": 0.8, "error": 0.02, "free_energy": 0.0, "free_energy_error": 0.0, "chains": 10}
    upgraded = {"verdict": verdict, "reasons": ["R-hat of psi 1 is 1.2, above 1.01"], "states": [row]}
    text = " ".join(upgraded_panels(upgraded | {"chains": 10, "steps": 500}))
    assert f"They are {verdict}: R-hat" in text
    assert "80 ± 2" in text
    assert upgraded_panels(None) == []
