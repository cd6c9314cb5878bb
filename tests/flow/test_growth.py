"""The curves of a torsion against sums over pairs that are written out, and the geometry against the chart's."""

import pytest
import torch

from timewarp import units
from timewarp.energy import Potential
from timewarp.flow.growth import ANGLES, CHANNELS, Growth
from timewarp.flow.pair_curves import TEMPER
from timewarp.flow.pair_tables import born_radii

from .molecules import chart_of, flow_of, molecule_of, proposal_of

SEQUENCES = ["AA", "HM", "PW", "APGP", "ACE-SER-NME"]
KT = units.kT(310.0)


def angles(chart, count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(count, chart.torsions, generator=rng, dtype=torch.float64) - 1) * torch.pi


def grown(growth, torsions):
    placed = growth.begin(len(torsions))
    for number in range(torsions.shape[1]):
        placed = growth.place(number, placed, torsions[:, number])
    return placed


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_what_is_grown_is_the_charts_geometry(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    torsions = angles(chart, 5)
    expected = chart.inverse(torsions, torch.zeros(5, chart.stiffs, dtype=torch.float64))[0]
    found = grown(Growth(molecule, chart, 310.0), torsions)[:, chart.back]
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(expected, expected), atol=1e-5, rtol=0)
    assert (found - expected).norm(dim=-1).max() < 1e-5


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_the_curves_are_the_pairs_that_a_group_makes(sequence):
    """Each pair of the molecule is in the curve of one torsion, or the same at every angle."""
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    growth = Growth(molecule, chart, 310.0)
    rng = torch.Generator().manual_seed(4)
    torsions, index = angles(chart, 1, 1), torch.randint(ANGLES, (chart.torsions,), generator=rng)
    torsions[0] = -torch.pi + 2 * torch.pi / ANGLES * index.double()
    curves = growth.curves(torsions)[0]
    at = curves[torch.arange(chart.torsions), :, index]
    x = chart.inverse(torsions, torch.zeros(1, chart.stiffs, dtype=torch.float64))[0][0]
    y = chart.inverse(torsions + 1.0, torch.zeros(1, chart.stiffs, dtype=torch.float64))[0][0]
    clash, electric = pair_energies(molecule, x)
    moved = (torch.cdist(x, x) - torch.cdist(y, y)).abs() > 1e-7  # pairs that some torsion changes
    # a pair on a torsion's axis keeps its distance: it is in no curve, nor does it move
    assert electric[moved].sum() / 2 == pytest.approx(at[:, 1].sum().item(), abs=1e-6)
    over = at[:, 0] > TEMPER
    bare = torch.where(over, TEMPER * torch.expm1((at[:, 0] - TEMPER) / TEMPER) + TEMPER, at[:, 0])
    assert clash[moved].sum() / 2 == pytest.approx(bare.sum().item(), rel=1e-6, abs=1e-6)


def pair_energies(molecule, x):
    """(Lennard-Jones, Coulomb and generalized Born) of all ordered pairs in kT, with the Born radii held."""
    ff = molecule.forcefield
    n = molecule.atoms
    radii = born_radii(ff.born, molecule.reference)
    special = {}
    for (i, j), q, s, e in zip(
        ff.exception_index.tolist(), ff.exception_charge, ff.exception_sigma, ff.exception_epsilon, strict=True
    ):
        special[i, j] = special[j, i] = (q, s, e)
    clash, electric = torch.zeros(n, n).double(), torch.zeros(n, n).double()
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            both = ff.charge[i] * ff.charge[j], (ff.sigma[i] + ff.sigma[j]) / 2, (ff.epsilon[i] * ff.epsilon[j]).sqrt()
            q, s, e = special.get((i, j), both)
            r = (x[i] - x[j]).norm().clamp_min(0.08)
            clash[i, j] = 4 * e * ((s / r) ** 12 - (s / r) ** 6)
            f = (r * r + radii[i] * radii[j] * torch.exp(-r * r / (4 * radii[i] * radii[j]))).sqrt()
            share = 1 / ff.born.solute_dielectric - 1 / ff.born.solvent_dielectric
            electric[i, j] = units.COULOMB * q / r - ff.born.coulomb * share * ff.born.charge[i] * ff.born.charge[j] / f
    return clash / KT, electric / KT


@pytest.mark.parametrize("sequence", ["AA", "HM"])
def test_born_radii_are_those_of_the_energy(sequence):
    """The solvent's energy of one charge alone is -q^2 (1 - 1/eps) / 2B."""
    from dataclasses import replace

    molecule = molecule_of(sequence)
    ff = molecule.forcefield
    radii = born_radii(ff.born, molecule.reference)
    zero = torch.zeros_like(ff.charge)
    for atom in (0, molecule.atoms // 2, molecule.atoms - 1):
        one = zero.clone()
        one[atom] = 1.0
        energies = []
        for charge in (zero, one):
            born = replace(ff.born, charge=charge, surface=0.0)
            alone = replace(molecule, forcefield=replace(ff, born=born))
            energies.append(Potential(alone, 310.0, dtype=torch.float64).kilojoules(molecule.reference)[0])
        share = 1 / ff.born.solute_dielectric - 1 / ff.born.solvent_dielectric
        expected = -0.5 * ff.born.coulomb * share / radii[atom]
        assert (energies[1] - energies[0]).item() == pytest.approx(expected.item(), rel=1e-6)


@torch.no_grad()
def test_draws_and_densities_agree_with_curves_that_matter():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    flow = flow_of(torch.float64)
    flow.torsion.leave[1].bias[-CHANNELS:] = 0.7
    bound = proposal_of(molecule, chart, flow, torch.float64)
    uniform = torch.rand(200, chart.torsions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tau, drawn = flow.torsion.sample(bound.tokens, bound.atoms, uniform, bound.growth)
    found = flow.torsion.log_prob(bound.tokens, bound.atoms, tau, bound.growth.curves(tau))
    assert (found - drawn).abs().max() < 1e-6
    without = flow.torsion.log_prob(bound.tokens, bound.atoms, tau)
    assert (without - drawn).abs().median() > 0.1


@torch.no_grad()
def test_fused_curves_are_the_same():
    molecule, chart = molecule_of("AA"), chart_of("AA", torch.float32)
    torsions = angles(chart, 16).float()
    plain, fused = (Growth(molecule, chart, 310.0, compiled).curves(torsions) for compiled in (False, True))
    assert (plain - fused).abs().max() < 2e-3
