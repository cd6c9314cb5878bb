"""The gradient with respect to bonds, angles and dihedrals, from that with respect to positions.

Changing one internal coordinate moves all atoms beyond it as a rigid body, so that its share is the force on that body
along the bond, or the torque about the axis of the angle or the dihedral.

| symbol | variable |
|---|---|
| df/dr = e . sum F | along the bond e |
| df/dtheta = n . sum (x - x_parent) cross F | about the normal n of the angle |
| df/dphi = b . sum (x - x_parent) cross F | about the bond b of parent and grandparent |
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

TINY = 1e-12


def below(refs: Int[Tensor, "atoms 3"]) -> Float[Tensor, "2 atoms atoms"]:
    """1 where the bond or angle (first) or the dihedral (second) of an atom moves another one.

    Args:
        refs: (parent, grandparent, great-grandparent) of each atom, all earlier; -1 for none.
    """
    moved = torch.eye(len(refs), dtype=torch.float64)
    for atom in reversed(range(1, len(refs))):
        moved[refs[atom, 0]] += moved[atom]
    led = moved.clone()
    for atom, first in enumerate(leads(refs).tolist()):
        if first >= 0:
            led[first] += moved[atom]
    return torch.stack([moved, led])


def leads(refs: Int[Tensor, "atoms 3"]) -> Int[Tensor, " atoms"]:
    """The first of its siblings, whose dihedral each atom follows; -1 for itself and where there is none."""
    rows = refs.tolist()
    first = [row[2] if k >= 3 and rows[row[2]][:2] == row[:2] else -1 for k, row in enumerate(rows)]
    return torch.tensor(first)


def torques(
    x: Float[Tensor, "*batch atoms 3"],
    gradient: Float[Tensor, "*batch atoms 3"],
    refs: Int[Tensor, "atoms 3"],
    below: Float[Tensor, "2 atoms atoms"],
) -> Float[Tensor, "*batch atoms 3"]:
    """df/d(bond, angle, dihedral) of each atom, from df/dx; without meaning where an atom has no such coordinate."""
    shape = x.shape
    x, gradient = x.reshape(-1, *shape[-2:]), gradient.reshape(-1, *shape[-2:])
    parent, up = (x[:, refs[:, k].clamp_min(0)] for k in range(2))
    both = torch.cat([gradient, torch.linalg.cross(x, gradient)], -1).transpose(0, 1).flatten(1)
    bodies = (below.to(both).flatten(0, 1) @ both).unflatten(1, (-1, 6)).transpose(0, 1)
    (force, torque), (led_force, led_torque) = (part.split(3, -1) for part in bodies.chunk(2, 1))
    torque = torque - torch.linalg.cross(parent, force)
    led_torque = led_torque - torch.linalg.cross(parent, led_force)
    bond, axis = x - parent, parent - up
    normal = torch.linalg.cross(bond, axis)
    pairs = ((bond, force), (normal, torque), (axis, led_torque))
    each = [(way * what).sum(-1) / way.square().sum(-1).clamp_min(TINY).sqrt() for way, what in pairs]
    return torch.stack(each, -1).reshape(shape)
