"""Forces among bonded atoms -> tables: bonds, angles, torsions of every form, impropers, maps."""

from __future__ import annotations

import math
import re

import openmm
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from timewarp.md.expression import Expression
from timewarp.md.rows import rows, table
from timewarp.md.unsupported import unsupported

_TORSION = ("torsion_index", "torsion_periodicity", "torsion_phase", "torsion_barrier")


def bonds(force: openmm.HarmonicBondForce) -> dict[str, Tensor]:
    found = [force.getBondParameters(i) for i in range(force.getNumBonds())]
    return table(found, 2, ("bond_index", "bond_length", "bond_stiffness"))


def angles(force: openmm.HarmonicAngleForce) -> dict[str, Tensor]:
    found = [force.getAngleParameters(i) for i in range(force.getNumAngles())]
    return table(found, 3, ("angle_index", "angle_value", "angle_stiffness"))


def torsions(force: openmm.PeriodicTorsionForce) -> dict[str, Tensor]:
    return table([force.getTorsionParameters(i) for i in range(force.getNumTorsions())], 4, _TORSION)


def ryckaert_bellemans(force: openmm.RBTorsionForce) -> dict[str, Tensor]:
    """A polynomial of cos(phi - pi), as the periodic torsions that it is exactly; one without a period is its mean."""
    terms = []
    for i in range(force.getNumTorsions()):
        *atoms, c0, c1, c2, c3, c4, c5 = force.getTorsionParameters(i)
        mean, *heights = chebyshev.poly2cheb([c._value for c in (c0, c1, c2, c3, c4, c5)])
        # a cos(n (phi - pi)) = a (1 + cos(n phi - n pi)) - a
        terms += [(*atoms, n, (n % 2) * math.pi, height) for n, height in enumerate(heights, 1) if height]
        terms.append((*atoms, 0, 0.0, 0.5 * (mean - sum(heights))))
    return table(terms, 4, _TORSION)


_PI = r"3\.14159[0-9]*"
_AROUND = (  # harmonic in the difference within half a turn, as CHARMM's, AMBER's and GROMACS's readers write it
    (1.0, rf"k\*min\(dtheta,2\*(pi|{_PI})-dtheta\)\^2", {"dtheta": r"abs\(theta-theta0\)"}),
    (
        0.5,
        r"0\.5\*k\*\(thetap-theta0\)\^2",
        {"thetap": r"step\(-\(theta-theta0\+pi\)\)\*2\*pi\+theta\+step\(theta-theta0-pi\)\*\(-2\*pi\)"},
    ),
)


def impropers(force: openmm.CustomTorsionForce) -> dict[str, Tensor]:
    """Harmonic ones.

    Raises:
        UnsupportedForce: if the expression is another.
    """
    names = [force.getPerTorsionParameterName(i) for i in range(force.getNumPerTorsionParameters())]
    said = Expression.of(force.getEnergyFunction())
    if sorted(names) != ["k", "theta0"] or force.getNumGlobalParameters():
        raise unsupported(force, f"the energy {said.body} of {', '.join(names)}")
    terms = []
    for i in range(force.getNumTorsions()):
        *atoms, values = force.getTorsionParameters(i)
        terms.append((*atoms, values[names.index("theta0")], values[names.index("k")]))
    found = table(terms, 4, ("improper_index", "improper_value", "improper_stiffness"))
    # without any turning back, only where the far side is as far either way
    plain = said == ("k*(theta-theta0)^2", {}, {}) and not found["improper_value"].any()
    factors = [1.0] if plain else [f for f, body, parts in _AROUND if _is(said, body, parts)]
    if not factors:
        raise unsupported(force, f"the energy {force.getEnergyFunction()}")
    return found | {"improper_stiffness": 2 * factors[0] * found["improper_stiffness"]}


def _is(said: Expression, body: str, parts: dict[str, str]) -> bool:
    return (
        bool(re.fullmatch(body, said.body))
        and said.parts.keys() == parts.keys()
        and all(re.fullmatch(pattern, said.parts[name]) for name, pattern in parts.items())
        and all(name == "pi" and abs(value - math.pi) < 1e-6 for name, value in said.numbers.items())
    )


def maps(force: openmm.CMAPTorsionForce) -> dict[str, Tensor]:
    """The maps that are used, and where.

    Raises:
        UnsupportedForce: if they differ in size.
    """
    found = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    used = sorted({kind for kind, *_ in found})
    grids = []
    for kind in used:
        size, energy = force.getMapParameters(kind)
        # the first angle runs fastest
        grids.append(rows([energy._value], size * size).reshape(size, size).T)
    if not grids:
        return {}
    if len({len(grid) for grid in grids}) > 1:
        raise unsupported(force, f"maps of {' and '.join(str(n) for n in sorted({len(g) for g in grids}))} points")
    index = torch.tensor([atoms for _, *atoms in found])
    kinds = torch.tensor([used.index(kind) for kind, *_ in found])
    return {"map_index": index, "map_kind": kinds, "map_energy": torch.stack(grids)}
