"""Laws of the puckers: found by the graph, round the whole circle without a fold, with their volume and slopes."""

from dataclasses import replace

import pytest
import torch

from timewarp.assemble.peptide import Peptide
from timewarp.energy import Bonded
from timewarp.flow.chart import InternalChart
from timewarp.flow.geometry import dihedral
from timewarp.flow.growth import Growth
from timewarp.flow.pucker import STEP, UNIT
from timewarp.flow.ring_growth import RingStep
from timewarp.flow.tokens import Tokens
from timewarp.flow.tree import tree

from .molecules import chart_of, molecule_of, names_of

RING = {"N", "CA", "CB", "CG", "CD"}


@pytest.mark.parametrize(
    ("sequence", "count"), [("PS", 1), ("AP", 1), ("PGP", 2), ("HW", 0), ("FY", 0), ("CYX-CYX", 0)]
)
def test_the_rings_of_proline_are_found_and_no_others(sequence, count):
    rings, names = tree(molecule_of(sequence)).rings, names_of(sequence)
    assert len(rings) == count
    for ring in rings:
        assert {names[atom].rstrip("0123456789") for atom in ring.atoms} == RING
        first, second = ring.places
        free = tree(molecule_of(sequence)).free
        assert first < second
        assert free[first]
        assert not free[second]


@pytest.mark.parametrize("sequence", ["PS", "AP"])
def test_the_dihedrals_of_the_ring_are_those_of_pseudorotation(sequence):
    """At amplitude 1 and any phase, two of the ring's own dihedrals follow the cosine, but for a few degrees."""
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    assert len(chart.puckers) == 1
    phase = torch.linspace(-3.1, 3.1, 12, dtype=torch.float64)
    internal = chart.puckers.curled(chart.prepared).expand(12, -1, -1).clone()
    internal[:, chart.puckers.phases[0], 2], internal[:, chart.puckers.amplitudes[0], 2] = phase, 1.0
    x = chart.cartesian(chart.puckers.uncurled(internal))
    atoms = list(chart.tree.rings[0].atoms)
    for k in range(2):
        turn = dihedral(*x[:, atoms[k : k + 4]].unbind(1))
        assert (turn - UNIT * torch.cos(phase + k * STEP)).abs().max() < 0.15
    assert molecule.atoms == x.shape[1]


@pytest.mark.parametrize("sequence", ["PS", "AP", "GPG"])
def test_growth_places_what_the_chart_places(sequence):
    """Round the circle, with the stiff coordinates at their mean."""
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    growth = Growth(molecule, chart, 310.0)
    rng = torch.Generator().manual_seed(3)
    torsions = 6 * torch.rand(8, chart.torsions, generator=rng, dtype=torch.float64) - 3
    placed = growth.begin(8)
    for number in range(chart.torsions):
        placed = growth.place(number, placed, torsions[:, number])
    expected = chart.inverse(torsions, torch.zeros(8, chart.stiffs, dtype=torch.float64))[0][:, chart.tree.order]
    torch.testing.assert_close(torch.cdist(placed, placed), torch.cdist(expected, expected), atol=1e-6, rtol=0)


def test_no_phase_is_met_twice():
    """One dihedral of a ring has each value twice round the circle; both together have none twice."""
    chart = chart_of("PS")
    phase = torch.arange(0, 2 * torch.pi, 0.01, dtype=torch.float64)[:, None]
    turns = chart.puckers.dihedrals(phase, torch.ones_like(phase))[:, 0]
    assert (turns[:, 0].diff() > 0).any()
    assert (turns[:, 0].diff() < 0).any()
    apart = torch.cdist(turns, turns) + 10 * torch.eye(len(turns), dtype=torch.float64)
    assert apart.min() > 1e-3
    # a walk round it is a closed curve that turns one way: the cross product of neighbours has one sign
    middle = turns - turns.mean(0)
    cross = middle[:-1, 0] * middle[1:, 1] - middle[:-1, 1] * middle[1:, 0]
    assert (cross.sign() == cross[0].sign()).all()


@pytest.mark.parametrize("amplitude", [-0.5, 0.2, 1.0, 2.0])
def test_volume_is_that_of_the_map(amplitude):
    puckers = chart_of("AP").puckers
    at = torch.tensor([0.7, amplitude], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda u: puckers.dihedrals(u[:1], u[1:])[0])(at)
    internal = torch.zeros(chart_of("AP").atoms, 3, dtype=torch.float64)
    internal[puckers.phases, 2], internal[puckers.amplitudes, 2] = at[0], at[1]
    found = puckers.log_volume(puckers.uncurled(internal))
    assert found.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-9)


@pytest.mark.parametrize("sequence", ["PS", "AP", "GPG"])
def test_slopes_are_those_of_the_map_from_phase_and_amplitude(sequence):
    chart = chart_of(sequence)
    rng = torch.Generator().manual_seed(2)
    torsions = 6 * torch.rand(3, chart.torsions, generator=rng, dtype=torch.float64) - 3
    stiff = torch.randn(3, chart.stiffs, generator=rng, dtype=torch.float64)
    force = torch.randn(3, chart.atoms, 3, generator=rng, dtype=torch.float64)
    leaves = torsions.clone().requires_grad_(), stiff.clone().requires_grad_()
    x, log_det = chart.inverse(*leaves)
    expected = torch.autograd.grad((x * force).sum() + log_det.sum(), leaves)
    found = chart.slopes(chart.join(torsions, stiff), x.detach(), force)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_a_mirror_image_has_the_other_centre_and_the_opposite_phase():
    molecule = molecule_of("AP")
    mirror = replace(molecule, reference=molecule.reference * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    one, other = chart_of("AP"), InternalChart(mirror, Bonded(mirror), dtype=torch.float64)
    assert torch.cos(one.puckers.centre + other.puckers.centre).min() > 1 - 1e-9
    phases = [chart.puckers.curled(chart.prepared)[chart.puckers.phases, 2] for chart in (one, other)]
    assert torch.cos(phases[0] - phases[1]) < -1 + 1e-9


def test_a_whitening_of_another_version_is_refused():
    arrays = chart_of("AP").arrays()
    again = InternalChart(molecule_of("AP"), whitening=arrays, dtype=torch.float64)
    assert torch.equal(again.puckers.phases, chart_of("AP").puckers.phases)
    for name in ("phases", "closing"):
        with pytest.raises(ValueError, match="another version"):
            InternalChart(molecule_of("AP"), whitening={k: v for k, v in arrays.items() if k != name})


def test_a_token_of_the_phase_has_the_energy_of_all_bonds_of_the_ring():
    molecule, chart = molecule_of("AP"), chart_of("AP")
    tokens = Tokens.of(molecule, chart, 310.0)
    number = chart.place_of_torsion.tolist().index(int(chart.puckers.phases[0]))
    energy = tokens.torsion_energy[number]
    minima = (energy < energy.roll(1)) & (energy < energy.roll(-1))
    assert minima.sum() == 2  # the two puckers
    assert 2.0 < energy.max() - energy.min() < 15.0


def test_a_step_of_growth_is_a_ring_where_there_is_one():
    molecule, chart = molecule_of("GPG"), chart_of("GPG")
    steps = Growth(molecule, chart, 310.0).steps
    kinds = [isinstance(step, RingStep) for step in steps]
    assert kinds == torch.isin(chart.place_of_torsion, chart.puckers.phases).tolist()
    step = next(step for step in steps if isinstance(step, RingStep))
    assert step.led.any(0).all()


@pytest.mark.parametrize(("sequence", "count"), [("AP", 2), ("PS", 2), ("PGP", 4), ("AA", 0), ("HW", 0)])
def test_what_hangs_on_the_other_bonds_of_a_ring_leans_with_its_pucker(sequence, count):
    """Of the geometry that it is found from, and of that with the ring turned into its other pucker, but for 15 deg."""
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    puckers = chart.puckers
    assert len(puckers.hung) == count
    names = names_of(sequence)
    assert all(names[chart.tree.order[place]].startswith("H") for place in puckers.hung)
    curled = puckers.curled(chart.internal(molecule.reference.double()[None])[0])
    lean = puckers.leaning(curled[puckers.phases, 2], curled[puckers.amplitudes, 2])
    apart = torch.remainder(lean - curled[puckers.hung, 2] + torch.pi, 2 * torch.pi) - torch.pi
    assert (apart.abs() < 0.26).all()


@pytest.mark.parametrize("sequence", ["AP", "PS"])
def test_the_stiff_coordinates_start_from_the_mean_but_for_what_leans(sequence):
    chart = chart_of(sequence)
    rng = torch.Generator().manual_seed(1)
    torsions = 6 * torch.rand(5, chart.torsions, generator=rng, dtype=torch.float64) - 3
    start = chart.puckers.curled(chart.join(torsions, chart.start(torsions)))
    still = chart.puckers.curled(chart.join(torsions, torch.zeros(5, chart.stiffs, dtype=torch.float64)))
    hung = torch.zeros(chart.atoms, 3, dtype=torch.bool)
    hung[chart.puckers.hung, 2] = True
    torch.testing.assert_close(start[:, ~hung], still[:, ~hung], rtol=0, atol=1e-9)
    lean = chart.puckers.leaning(start[:, chart.puckers.phases, 2], start[:, chart.puckers.amplitudes, 2])
    apart = torch.remainder(start[:, chart.puckers.hung, 2] - lean + torch.pi, 2 * torch.pi) - torch.pi
    assert apart.abs().max() < 1e-9
    assert (start - still)[:, hung].abs().max() > 0.5


@pytest.mark.parametrize("sequence", ["AP", "GP"])
def test_both_puckers_of_an_inner_proline_are_found(sequence):
    """Their energies differ by a kT or two; the second was missed where all started from the mean, 5 to 8 kT higher."""
    peptide = Peptide.of(molecule_of(sequence), seed=1)
    chart = peptide.chart
    torsions = chart.forward(molecule_of(sequence).reference.float()[None])[0].expand(2, -1).clone()
    which = int((chart.place_of_torsion == chart.puckers.phases[0]).nonzero()[0, 0])
    torsions[:, which] = torch.tensor([-1.4, 1.75])
    relaxed = peptide.stiff.at(torsions).mean
    first, second = peptide.response.value(torsions, relaxed).tolist()
    assert abs(second - first) < 3.0
    amplitudes = chart.puckers.curled(chart.join(torsions, relaxed))[:, chart.puckers.amplitudes[0], 2]
    assert (amplitudes > 0.8).all()
