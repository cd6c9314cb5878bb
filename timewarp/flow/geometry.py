"""Bond lengths, angles and dihedrals, and the placement of an atom from them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Points = Float[Tensor, "*batch 3"]


def distance(a: Points, b: Points) -> Float[Tensor, "*batch"]:
    return torch.linalg.vector_norm(a - b, dim=-1)


def angle(a: Points, b: Points, c: Points) -> Float[Tensor, "*batch"]:
    """Angle at b, rad."""
    u, w = a - b, c - b
    return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(u, w), dim=-1), (u * w).sum(-1))


def dihedral(a: Points, b: Points, c: Points, d: Points) -> Float[Tensor, "*batch"]:
    """Dihedral a-b-c-d in (-pi, pi], IUPAC sign (cis is 0)."""
    b1, b2, b3 = b - a, c - b, d - c
    m, n = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
    return torch.atan2((b1 * n).sum(-1) * torch.linalg.vector_norm(b2, dim=-1), (m * n).sum(-1))


def local(
    length: Float[Tensor, "*batch"], bend: Float[Tensor, "*batch"], turn: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3"]:
    """Where an atom is from the three that it hangs on, for `set_off`.

    Args:
        length: distance from parent, nm.
        bend: angle to grandparent, rad.
        turn: dihedral to the one beyond, rad.
    """
    across = length * torch.sin(bend)
    return torch.stack([-length * torch.cos(bend), across * torch.cos(turn), across * torch.sin(turn)], -1)


def set_off(
    parent: Points, grandparent: Points, beyond: Points, local: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """The atom at `local` from parent: along the bond from grandparent, across it on beyond's side, and out of it."""
    axis = parent - grandparent
    axis = axis / torch.linalg.vector_norm(axis, dim=-1, keepdim=True)
    normal = torch.linalg.cross(grandparent - beyond, axis)
    normal = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    along, across, up = local.split(1, -1)
    there = torch.addcmul(parent, along, axis)
    return torch.addcmul(torch.addcmul(there, across, torch.linalg.cross(normal, axis)), up, normal)


def wrap(phi: Tensor) -> Tensor:
    """The angle in [-pi, pi)."""
    return torch.remainder(phi + torch.pi, 2 * torch.pi) - torch.pi
