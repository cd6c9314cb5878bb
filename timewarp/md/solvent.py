"""Implicit-solvent forces -> `GeneralizedBorn`.

The models of OpenMM's `implicit/` files are `CustomGBForce`s, which are known by their expressions.
"""

from __future__ import annotations

import math
import re

import openmm
import torch

from timewarp.forcefield import GeneralizedBorn
from timewarp.md.expression import Expression
from timewarp.md.nonbonded import cutoff, discrete
from timewarp.md.rows import rows
from timewarp.md.unsupported import unsupported

COULOMB = 138.935485  # kJ/mol nm/e^2, in the expressions
SURFACE = 28.3919551  # kJ/mol/nm^2, likewise


def obc(force: openmm.GBSAOBCForce) -> GeneralizedBorn:
    """The OBC2 model that OpenMM has as a force of its own."""
    charge, radius, scale = rows([force.getParticleParameters(i) for i in range(force.getNumParticles())], 3).unbind(1)
    offset = 0.009
    return GeneralizedBorn(
        radius=radius - offset,
        scaled=scale * (radius - offset),
        charge=charge,
        offset=offset,
        alpha=1.0,
        beta=0.8,
        gamma=4.85,
        solute_dielectric=force.getSoluteDielectric(),
        solvent_dielectric=force.getSolventDielectric(),
        surface=4 * math.pi * force.getSurfaceAreaEnergy()._value,
        coulomb=138.93545764438198,
        cutoff=cutoff(force),
    )


_SPHERES = "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0)"
_WITHIN = {"U": "r+sr2", "L": "max(or1,D)", "D": "abs(r-sr2)"}
_NECKS = _WITHIN | {
    "Ivdw": _SPHERES,
    "Ineck": "step(radius1+radius2+neckCut-r)*getm0(radindex1,radindex2)"
    "/(1+100*(r-getd0(radindex1,radindex2))^2+0.3*1000000*(r-getd0(radindex1,radindex2))^6)",
    "radius1": "or1+offset",
    "radius2": "or2+offset",
}
_POLYNOMIAL = r"(?:([0-9.]+)\*)?psi(?:-([0-9.]+)\*psi\^2)?\+([0-9.]+)\*psi\^3"


def custom_born(force: openmm.CustomGBForce) -> GeneralizedBorn:
    """HCT, OBC1, OBC2, GBn or GBn2, with or without salt, surface term and cutoff.

    Raises:
        UnsupportedForce: saying which part of it is another.
    """
    if force.getNumGlobalParameters() or force.getNumComputedValues() != 2:
        raise unsupported(force, "other values than a Born integral and a Born radius")
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    values = rows([force.getParticleParameters(i) for i in range(force.getNumParticles())], len(names))
    atom = dict(zip(names, values.T.contiguous(), strict=True))
    if not {"charge", "or", "sr"} <= atom.keys():
        raise unsupported(force, "the parameters " + ", ".join(names))
    (_, integral, over_pairs), (_, radius, over_atoms) = (force.getComputedValueParameters(i) for i in range(2))
    if over_pairs != openmm.CustomGBForce.ParticlePairNoExclusions or over_atoms != openmm.CustomGBForce.SingleParticle:
        raise unsupported(force, "exclusions in its Born integral")
    setting, surface = _energies(force)
    return GeneralizedBorn(
        charge=atom["charge"],
        radius=atom["or"],
        scaled=atom["sr"],
        offset=setting["offset"],
        solute_dielectric=setting["soluteDielectric"],
        solvent_dielectric=setting["solventDielectric"],
        kappa=setting["kappa"],
        surface=surface,
        coulomb=COULOMB,
        cutoff=cutoff(force),
        **_integral(force, Expression.of(integral), atom, setting["offset"]),
        **_radius(force, Expression.of(radius), atom, setting["offset"]),
    )


def _integral(force, said: Expression, atom, offset) -> dict[str, torch.Tensor]:
    if said == (_SPHERES, _WITHIN, {}):
        return {}
    functions = {force.getTabulatedFunctionName(i): i for i in range(force.getNumTabulatedFunctions())}
    known = said.body == "Ivdw+neckScale*Ineck" and said.parts == _NECKS and said.numbers.get("offset") == offset
    if not known or said.numbers.keys() != {"neckScale", "neckCut", "offset"} or functions.keys() != {"getm0", "getd0"}:
        raise unsupported(force, "another Born integral")
    depth, position = (discrete(force.getTabulatedFunction(functions[name])) for name in ("getm0", "getd0"))
    kind = atom["radindex"].long()
    radius = atom["or"] + offset
    return {
        "neck_depth": said.numbers["neckScale"] * depth[kind][:, kind].fill_diagonal_(0),
        "neck_position": position[kind][:, kind],
        "neck_limit": radius[:, None] + radius + said.numbers["neckCut"],
    }


def _radius(force, said: Expression, atom, offset) -> dict[str, float] | dict[str, torch.Tensor]:
    if said == ("1/(1/or-I)", {}, {}):
        return {"alpha": 0.0, "beta": 0.0, "gamma": 0.0}
    found = re.fullmatch(r"1/\(1/or-tanh\(([^()]+)\)/radius\)", said.body)
    if not found or (said.parts, said.numbers) != ({"psi": "I*or", "radius": "or+offset"}, {"offset": offset}):
        raise unsupported(force, "another Born radius")
    if found[1] == "alpha*psi-beta*psi^2+gamma*psi^3" and {"alpha", "beta", "gamma"} <= atom.keys():
        return {name: atom[name] for name in ("alpha", "beta", "gamma")}
    terms = re.fullmatch(_POLYNOMIAL, found[1])
    if not terms:
        raise unsupported(force, "another Born radius")
    return {"alpha": float(terms[1] or 1), "beta": float(terms[2] or 0), "gamma": float(terms[3])}


def _energies(force) -> tuple[dict[str, float], float]:
    """The numbers that all energy terms share, and the surface tension (kJ/mol/nm^2)."""
    terms = [force.getEnergyTermParameters(i) for i in range(force.getNumEnergyTerms())]
    found = {}
    for text, over in terms:
        said = Expression.of(text)
        found[_term(force, said, over)] = said.numbers
    shared = {"kappa": 0.0} | next(iter(found.values()), {})
    if len(found) != len(terms) or not {"self", "pair"} <= found.keys():
        raise unsupported(force, "other energy terms")
    if any({"kappa": 0.0} | numbers != shared for numbers in found.values()) or not shared.keys() >= {
        "soluteDielectric",
        "solventDielectric",
        "offset",
    }:
        raise unsupported(force, "energy terms that do not agree")
    return shared, SURFACE if "surface" in found else 0.0


def _term(force, said: Expression, over) -> str:
    """Which of the three energy terms it is."""
    salt = bool(said.numbers.get("kappa"))
    reach = cutoff(force)
    single, double = openmm.CustomGBForce.SingleParticle, openmm.CustomGBForce.ParticlePairNoExclusions

    def tau(of):
        return "(1/soluteDielectric-" + (f"exp(-kappa*{of})" if salt else "1") + "/solventDielectric)"

    if (over, said.parts, said.body) == (single, {}, f"-0.5*{COULOMB}*{tau('B')}*charge^2/B"):
        return "self"
    surface = f"{SURFACE}*(radius+0.14)^2*(radius/B)^6"
    if (over, said.parts, said.body) == (single, {"radius": "or+offset"}, surface):
        return "surface"
    f = {"f": "sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))"}
    start = f"-{COULOMB}*{tau('f')}*charge1*charge2"
    if (over, said.parts) == (double, f) and said.body.startswith(start):
        shift = re.fullmatch(r"/f|\*\(1/f-([0-9.e-]+)\)", said.body.removeprefix(start))
        if shift and math.isclose(float(shift[1] or 0) * (reach or 1), 1.0 if reach else 0.0, rel_tol=1e-9):
            return "pair"
    raise unsupported(force, f"the energy term {said.body}")
