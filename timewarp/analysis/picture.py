"""A molecule as a picture: balls and sticks in SVG, nearer atoms over farther ones, turned so that it lies broad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from mdtraj import Topology

COLOURS = {"C": "#5b6470", "N": "#3f6fd1", "O": "#d1443f", "S": "#c9a227", "H": "#d5dae0"}
RADII = {"C": 0.034, "N": 0.034, "O": 0.034, "S": 0.042, "H": 0.018}  # nm
BOND = 0.014  # nm
SIZE = (400, 300)  # CSS pixels
MARGIN = 0.06  # nm
FOG = 0.45  # how much of the farthest is lost in the white


def ball_and_stick(
    topology: Topology, positions: Float[np.ndarray, "atoms 3"], like: Float[np.ndarray, "atoms 3"] | None = None
) -> str:
    """SVG text of one structure (nm); hydrogens on carbon are left out.

    Args:
        topology: elements and bonds.
        positions: of all atoms.
        like: a structure of the same molecule on whose backbone this one is laid first, so that both compare.
    """
    atoms = list(topology.atoms)
    if like is not None:
        positions = _laid(positions, like, [a.index for a in atoms if a.name in ("N", "CA", "C")])
    turned = (positions - positions.mean(0)) @ _axes(positions if like is None else like)
    near = {b.index: a for pair in topology.bonds for a, b in (pair, pair[::-1])}
    shown = [a.index for a in atoms if a.element.symbol != "H" or _on_polar(near.get(a.index))]
    x = turned[shown]
    low, high = x.min(0) - MARGIN, x.max(0) + MARGIN
    scale = min(SIZE[0] / (high[0] - low[0]), SIZE[1] / (high[1] - low[1]))
    left, above = ((SIZE[k] - (high[k] - low[k]) * scale) / 2 for k in range(2))
    depth = dict(zip(shown, (x[:, 2] - x[:, 2].min()) / max(float(np.ptp(x[:, 2])), 1e-9), strict=True))

    def at(i: int) -> tuple[float, float]:
        return left + (turned[i, 0] - low[0]) * scale, above + (high[1] - turned[i, 1]) * scale

    parts: list[tuple[float, str]] = []
    for first, second in ((a.index, b.index) for a, b in topology.bonds):
        if first in depth and second in depth:
            parts += _stick(atoms, first, second, at, depth, scale)
    for i in shown:
        name = atoms[i].element.symbol
        (cx, cy), r = at(i), RADII.get(name, 0.034) * scale
        fill = _fogged(COLOURS.get(name, "#8a4fc4"), depth[i])
        edge = _fogged("#2b3038", depth[i])
        ball = f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{r:.1f}" fill="{fill}" stroke="{edge}" stroke-width=".8"/>'
        shine = f'<circle cx="{cx - r / 3:.1f}" cy="{cy - r / 3:.1f}" r="{r / 3:.1f}" fill="#fff" fill-opacity=".45"/>'
        parts.append((depth[i], ball + shine))
    body = "\n".join(text for _, text in sorted(parts))
    box = f'width="{SIZE[0]}" height="{SIZE[1]}" viewBox="0 0 {SIZE[0]} {SIZE[1]}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n{body}\n</svg>\n'


def _stick(atoms, first, second, at, depth, scale):
    (x1, y1), (x2, y2) = at(first), at(second)
    middle = (x1 + x2) / 2, (y1 + y2) / 2
    for i, (x, y) in ((first, (x1, y1)), (second, (x2, y2))):
        fill = _fogged(COLOURS.get(atoms[i].element.symbol, "#8a4fc4"), depth[i])
        line = f'x1="{x:.1f}" y1="{y:.1f}" x2="{middle[0]:.1f}" y2="{middle[1]:.1f}"'
        # just behind its ball
        yield (
            depth[i] - 1e-6,
            f'<line {line} stroke="{fill}" stroke-width="{BOND * scale:.1f}" stroke-linecap="round"/>',
        )


def _on_polar(neighbour) -> bool:
    return neighbour is not None and neighbour.element.symbol != "C"


def _fogged(colour: str, depth: float) -> str:
    share = FOG * (1 - depth)
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


def _axes(positions):
    """Right-handed principal axes, the longest first: columns are x (right), y (up) and z (towards the reader)."""
    centred = positions - positions.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    # the first atom stands to the left and above, so that the same molecule always looks the same
    for k, sign in ((0, -1), (1, 1)):
        if np.sign(centred[0] @ axes[:, k]) == -sign:
            axes = axes * np.where(np.arange(3) == k, -1.0, 1.0)
    return np.stack([axes[:, 0], axes[:, 1], np.cross(axes[:, 0], axes[:, 1])], 1)


def _laid(positions, like, chosen):
    """`positions` moved and turned so that the chosen atoms come nearest to those of `like` (Kabsch 1976)."""
    chosen = chosen if len(chosen) > 2 else list(range(len(positions)))
    a, b = positions[chosen], like[chosen]
    u, _, v = np.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
    mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    return (positions - a.mean(0)) @ (u @ mirror @ v) + b.mean(0)
