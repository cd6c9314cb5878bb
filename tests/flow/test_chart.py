"""Laws of the internal chart: one to one, with its volume, blind to pose and file order, true to handedness."""

from dataclasses import replace

import pytest
import torch

from timewarp.energy import Bonded
from timewarp.flow.chart import InternalChart
from timewarp.flow.geometry import dihedral, local, set_off
from timewarp.flow.pose import posed
from timewarp.flow.tree import tree

from .molecules import chart_of, molecule_of, shaken
from .test_tree import scrambled

PEPTIDES = ["AA", "GP", "HM", "FW", "ACE-ALA-NME", "CYX-CYX"]


def points(chart, count, seed=0, size=1.0):
    """Random torsions and stiff coordinates."""
    rng = torch.Generator().manual_seed(seed)
    torsions = torch.rand(count, chart.torsions, generator=rng, dtype=torch.float64) * 2 * torch.pi - torch.pi
    return torsions, size * torch.randn(count, chart.stiffs, generator=rng, dtype=torch.float64)


def circle(a, b):
    """Largest distance of angles."""
    return (torch.remainder(a - b + torch.pi, 2 * torch.pi) - torch.pi).abs().max()


def test_place_is_the_inverse_of_measuring():
    rng = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 50, 3, generator=rng, dtype=torch.float64)
    length, bend = 0.1 + torch.rand(2, 50, generator=rng, dtype=torch.float64)
    turn = (torch.rand(50, generator=rng, dtype=torch.float64) * 2 - 1) * torch.pi
    new = set_off(a, b, c, local(length, bend, turn))
    assert circle(dihedral(new, a, b, c), turn) < 1e-9
    assert (torch.linalg.vector_norm(new - a, dim=-1) - length).abs().max() < 1e-12


def test_a_dihedral_has_the_sign_of_iupac():
    """Looking along the middle bond, clockwise is positive."""
    a, b, c = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]]).double()
    d = torch.tensor([0.0, 1, 1]).double()
    assert dihedral(a, b, c, d).item() == pytest.approx(torch.pi / 2)


@pytest.mark.parametrize("sequence", PEPTIDES)
def test_forward_inverts_inverse(sequence):
    chart = chart_of(sequence)
    torsions, stiff = points(chart, 8)
    positions, log_det = chart.inverse(torsions, stiff)
    t, z, again = chart.forward(positions)
    assert circle(t, torsions) < 1e-8
    assert (z - stiff).abs().max() < 1e-6
    assert (again - log_det).abs().max() < 1e-7


@pytest.mark.parametrize("sequence", PEPTIDES)
def test_inverse_inverts_forward_and_the_pose_is_left_out(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    x = shaken(molecule, 6, 1)
    torsions, stiff, log_det = chart.forward(x)
    shape, again = chart.inverse(torsions, stiff)
    assert (posed(shape, x, chart.tree.order[:3]) - x).abs().max() < 1e-9
    assert (again - log_det).abs().max() < 1e-8
    same = shaken(molecule, 6, 1, size=0.0)  # one shape in six poses
    for part in chart.forward(same):
        assert (part - part[:1]).abs().max() < 1e-8


def test_axes_of_the_batch_are_free():
    chart = chart_of("AA")
    torsions, stiff = points(chart, 6)
    flat, log_det = chart.inverse(torsions, stiff)
    deep, deep_det = chart.inverse(torsions.reshape(2, 3, -1), stiff.reshape(2, 3, -1))
    assert torch.equal(deep.reshape(flat.shape), flat)
    assert torch.equal(deep_det.reshape(-1), log_det)
    assert torch.equal(chart.forward(deep)[1].reshape(stiff.shape), chart.forward(flat)[1])


@pytest.mark.parametrize("sequence", ["GG", "GP"])
def test_log_det_is_that_of_the_whole_jacobian(sequence):
    """|d x / d(tau, z, pose)|, the pose being the root's place, the second atom's direction and a turn about it."""
    chart = chart_of(sequence)
    torsions, stiff = points(chart, 1, seed=4)
    pose = torch.tensor([0.3, -0.2, 0.1, 0.7, 1.1, 2.2], dtype=torch.float64)

    def positions(u):
        tau, z, place = u.split([chart.torsions, chart.stiffs, 6])
        cos, sin = place[3:].cos(), place[3:].sin()
        one, zero = torch.ones_like(cos[0]), torch.zeros_like(cos[0])
        spin = torch.stack([one, zero, zero, zero, cos[0], -sin[0], zero, sin[0], cos[0]]).reshape(3, 3)
        tilt = torch.stack([cos[1], -sin[1], zero, sin[1], cos[1], zero, zero, zero, one]).reshape(3, 3)
        turn = torch.stack([one, zero, zero, zero, cos[2], -sin[2], zero, sin[2], cos[2]]).reshape(3, 3)
        return (chart.inverse(tau, z)[0] @ (turn @ tilt @ spin).T + place[:3]).reshape(-1)

    u = torch.cat([torsions[0], stiff[0], pose])
    jacobian = torch.func.jacrev(positions)(u)
    assert jacobian.shape[0] == jacobian.shape[1]
    # the direction's measure is the sine of its polar angle, here the angle with the x axis
    measure = torch.sin(pose[4]).log()
    log_det = chart.inverse(torsions, stiff)[1][0]
    assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx((measure - log_det).item(), abs=1e-7)


@pytest.mark.parametrize("sequence", ["AA", "GP"])
def test_stiff_coordinates_have_unit_curvature_at_their_mean(sequence):
    """The Hessian of U_bonded/kT - ln volume in z is the identity at z = 0, where the slope is zero."""
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    bonded = Bonded(molecule)
    torsions = chart.split(chart.prepared)[0]

    def energy(z):
        x, log_det = chart.inverse(torsions[None], z[None])
        return (bonded(x) + log_det)[0]

    origin = torch.zeros(chart.stiffs, dtype=torch.float64)
    hessian = torch.func.hessian(energy)(origin)
    assert (hessian - torch.eye(chart.stiffs)).abs().max() < 1e-6
    assert torch.func.grad(energy)(origin).abs().max() < 1e-6


def test_a_soft_direction_is_floored():
    chart = chart_of("AA")
    values, vectors = torch.linalg.eigh(chart.curvature)
    soft = InternalChart(
        molecule_of("AA"),
        whitening=chart.arrays() | {"curvature": vectors @ torch.diag(values.clamp_max(1e4) * 0 + 0.01) @ vectors.T},
        dtype=torch.float64,
    )
    assert soft.log_whitening == pytest.approx(0.0)
    assert (soft.root - torch.eye(chart.stiffs)).abs().max() < 1e-9


@pytest.mark.parametrize("sequence", ["AA", "LV", "PG"])
def test_the_order_of_the_file_does_not_matter(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    other, order = scrambled(molecule, 7)
    made = InternalChart(other, Bonded(other), dtype=torch.float64)
    x = shaken(molecule, 4, 2)
    for one, two in zip(chart.forward(x), made.forward(x[:, order]), strict=True):
        assert (one - two).abs().max() < 1e-6
    torsions, stiff = points(chart, 4)
    assert (chart.inverse(torsions, stiff)[0][:, order] - made.inverse(torsions, stiff)[0]).abs().max() < 1e-8


def test_the_mirror_image_has_a_chart_of_its_own():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    mirror = torch.tensor([-1.0, 1.0, 1.0]).double()
    image = replace(molecule, reference=molecule.reference * mirror)
    own = InternalChart(image, Bonded(image), dtype=torch.float64)
    x = shaken(molecule, 4, 3)
    assert chart.forward(x)[1].abs().max() < 15
    assert chart.forward(x * mirror)[1].abs().max() > 20  # an improper of the other sign
    assert own.forward(x * mirror)[1].abs().max() < 15
    assert own.forward(x)[1].abs().max() > 20


def turned(sequence, parent, up):
    """The molecule with everything beyond the bond parent-up turned by half a circle."""
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    rows = chart.tree.rows[:, :2].tolist()
    lead = next(k for k, row in enumerate(rows) if row == [parent, up] and k > 2)
    internal = chart.prepared.clone()
    internal[lead, 2] += torch.pi
    return replace(molecule, reference=chart.cartesian(internal[None])[0]), lead


def test_a_cis_amide_stays_cis():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    stiff_first = [
        k
        for k in range(3, molecule.atoms)
        if chart.stiff[k, 2]
        and [int(molecule.elements[a]) for a in chart.tree.rows[k, :2]] == [7, 6]
        and (chart.tree.rows[chart.back[chart.tree.rows[k, 2]], :2] != chart.tree.rows[k, :2]).any()
    ]
    parent, up = chart.tree.rows[stiff_first[0], :2].tolist()
    cis, lead = turned("AA", parent, up)
    made = InternalChart(cis, Bonded(cis), dtype=torch.float64)
    assert made.tree.order.tolist() == chart.tree.order.tolist()
    both = [c.join(torch.zeros(c.torsions).double(), torch.zeros(c.stiffs).double())[lead, 2] for c in (chart, made)]
    assert circle(both[0] + torch.pi, both[1]) < 0.3
    torsions, stiff = points(made, 4)
    x, _ = made.inverse(torsions, stiff)
    assert (made.forward(x)[1] - stiff).abs().max() < 1e-6
    assert circle(made.internal(x)[:, lead, 2], both[1]) < 0.8  # no draw leaves cis


def test_a_saved_chart_is_the_same_chart():
    molecule = molecule_of("LV")
    chart = chart_of("LV", torch.float32)
    again = InternalChart(molecule, whitening=chart.arrays())
    x = shaken(molecule, 3, 1).float()
    for one, two in zip(chart.forward(x), again.forward(x), strict=True):
        assert torch.equal(one, two)


def test_a_chart_saved_without_the_order_has_siblings_as_the_bonds_list_them():
    molecule = molecule_of("LV")
    arrays = chart_of("LV").arrays()
    old = InternalChart(molecule, whitening={k: arrays[k] for k in ("mean", "curvature")})
    assert old.tree.order.tolist() == tree(molecule, [0] * molecule.atoms).order.tolist()


def test_a_chart_needs_one_source_of_its_whitening():
    with pytest.raises(ValueError, match="either the bonded energy or an earlier whitening"):
        InternalChart(molecule_of("AA"))


@pytest.mark.parametrize("sequence", ["AA", "GP", "PG", "HM", "CYX-CYX"])
def test_the_slopes_are_autograds(sequence):
    """d(f + log_det)/d(tau, z) of an arbitrary function of the positions, from its gradient there."""
    chart = chart_of(sequence)
    torsions, stiff = points(chart, 5)
    weight = torch.randn(5, chart.atoms, 3, generator=torch.Generator().manual_seed(2)).double()
    at = torsions.requires_grad_(), stiff.requires_grad_()
    x, log_det = chart.inverse(torsions, stiff)
    f = (weight * (x + 3 * x.square())).sum((-1, -2))
    wanted = torch.autograd.grad((f + log_det).sum(), at, retain_graph=True)
    (gradient,) = torch.autograd.grad(f.sum(), x, retain_graph=True)
    with torch.no_grad():
        found = chart.slopes(chart.join(torsions, stiff), x, gradient)
    for one, two in zip(found, wanted, strict=True):
        assert (one - two).abs().max() < 1e-9 * two.abs().max().clamp_min(1)
