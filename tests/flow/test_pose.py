"""Laws of the pose: a shape is moved as a rigid body, and its first three atoms tell where."""

import torch

from timewarp.flow.pose import axes, posed

from .molecules import chart_of, molecule_of, shaken

SEQUENCE = "AA"


def frame():
    return chart_of(SEQUENCE).tree.order[:3]


def test_axes_are_a_right_handed_frame():
    origin, rotation = axes(shaken(molecule_of(SEQUENCE), 5, 0), frame())
    x = shaken(molecule_of(SEQUENCE), 5, 0)
    assert torch.equal(origin, x[:, frame()[0]])
    assert (rotation.transpose(-1, -2) @ rotation - torch.eye(3)).abs().max() < 1e-12
    assert (torch.linalg.det(rotation) - 1).abs().max() < 1e-12
    along = (x[:, frame()[1]] - origin)[:, None] @ rotation
    assert along[..., 1:].abs().max() < 1e-12
    assert along[..., 0].min() > 0
    third = (x[:, frame()[2]] - origin)[:, None] @ rotation
    assert third[..., 2].abs().max() < 1e-12
    assert third[..., 1].min() > 0


def test_the_charts_own_frame_is_the_identity():
    chart = chart_of(SEQUENCE)
    x = chart.inverse(torch.zeros(2, chart.torsions).double(), torch.zeros(2, chart.stiffs).double())[0]
    origin, rotation = axes(x, frame())
    assert origin.abs().max() < 1e-12
    assert (rotation - torch.eye(3)).abs().max() < 1e-12


def test_a_shape_moves_rigidly_into_the_pose():
    shape, target = shaken(molecule_of(SEQUENCE), 4, 1, 0.01), shaken(molecule_of(SEQUENCE), 4, 2, 0.01)
    moved = posed(shape, target, frame())
    assert (torch.cdist(moved, moved) - torch.cdist(shape, shape)).abs().max() < 1e-7
    mirror = torch.linalg.det(moved[:, 1:4] - moved[:, :1]) / torch.linalg.det(shape[:, 1:4] - shape[:, :1])
    assert (mirror - 1).abs().max() < 1e-9
    for one, two in zip(axes(moved, frame()), axes(target, frame()), strict=True):
        assert (one - two).abs().max() < 1e-12


def test_a_shape_in_its_own_pose_stays():
    x = shaken(molecule_of(SEQUENCE), 4, 1, 0.01)
    assert (posed(x, x, frame()) - x).abs().max() < 1e-12


def test_moving_the_pose_moves_the_shape():
    shape, target = shaken(molecule_of(SEQUENCE), 4, 1, 0.01), shaken(molecule_of(SEQUENCE), 4, 2, 0.01)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)).double())[0]
    turn = turn * torch.linalg.det(turn)
    shift = torch.tensor([1.0, -2.0, 3.0]).double()
    moved = posed(shape, target @ turn + shift, frame())
    assert (moved - (posed(shape, target, frame()) @ turn + shift)).abs().max() < 1e-12


def test_every_shape_goes_into_every_pose():
    """[count, 1] shapes and [batch] poses broadcast."""
    shape, target = shaken(molecule_of(SEQUENCE), 3, 1), shaken(molecule_of(SEQUENCE), 2, 2)
    both = posed(shape[:, None], target, frame())
    assert both.shape[:2] == (3, 2)
    assert (both[2, 1] - posed(shape[2:], target[1:], frame())[0]).abs().max() < 1e-12
