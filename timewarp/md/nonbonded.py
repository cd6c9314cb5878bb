"""Coulomb and Lennard-Jones forces -> tables, whether one OpenMM force holds both or each has its own."""

from __future__ import annotations

import re

import openmm
import torch
from torch import Tensor

from timewarp.md.expression import Expression
from timewarp.md.rows import rows, table
from timewarp.md.unsupported import unsupported

_EXCEPTION = ("exception_index", "exception_charge", "exception_sigma", "exception_epsilon")


def nonbonded(force: openmm.NonbondedForce) -> dict:
    """Charges, Lennard-Jones sites, exceptions and the cutoff.

    Raises:
        UnsupportedForce: if it is periodic, switched, or depends on the parameters of a Context.
    """
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise unsupported(force, "parameter offsets")
    if force.getExceptionsUsePeriodicBoundaryConditions():
        raise unsupported(force, "periodic exceptions")
    atoms = rows([force.getParticleParameters(i) for i in range(force.getNumParticles())], 3)
    found = [force.getExceptionParameters(i) for i in range(force.getNumExceptions())]
    return table(found, 2, _EXCEPTION) | {
        "charge": atoms[:, 0].clone(),
        "sigma": atoms[:, 1].clone(),
        "epsilon": atoms[:, 2].clone(),
        "cutoff": cutoff(force),
        "dielectric": force.getReactionFieldDielectric(),
    }


def cutoff(force) -> float:
    """In nm; 0 for none.

    Raises:
        UnsupportedForce: if the force is periodic, or switched before its cutoff.
    """
    method = force.getNonbondedMethod()
    if method == type(force).NoCutoff:
        return 0.0
    if method != type(force).CutoffNonPeriodic:
        raise unsupported(force, "a periodic cutoff")
    if hasattr(force, "getUseSwitchingFunction") and force.getUseSwitchingFunction():
        raise unsupported(force, "a switching function")
    return force.getCutoffDistance()._value


def lennard_jones(force: openmm.CustomNonbondedForce, tables: dict) -> dict:
    """CHARMM's sites, which are a matrix of coefficients, as the sigma and epsilon of each atom.

    Args:
        tables: what `nonbonded` found: the charges, and the pairs that are left out.

    Raises:
        UnsupportedForce: if it is another force, or a pair of sites is not the mean of its two (NBFIX).
    """
    first, second = _coefficients(force)
    more = force.getNumGlobalParameters() + force.getNumComputedValues() + force.getNumInteractionGroups()
    if more or force.getNumPerParticleParameters() != 1:
        raise unsupported(force, "other parameters than a type")
    left_out = {tuple(sorted(force.getExclusionParticles(i))) for i in range(force.getNumExclusions())}
    if cutoff(force) != tables["cutoff"] or left_out != _pairs(tables["exception_index"]):
        raise unsupported(force, "another cutoff or other exclusions than the charges")
    if tables["epsilon"].any():
        raise unsupported(force, "Lennard-Jones sites besides those of the NonbondedForce")
    kinds = torch.tensor([force.getParticleParameters(i)[0] for i in range(force.getNumParticles())]).long()
    used = kinds.unique()
    own, deep = first[used, used], second[used, used]  # 4 epsilon sigma^12, 4 epsilon sigma^6
    empty = deep == 0
    sigma6 = torch.where(empty, 1.0, own / torch.where(empty, 1.0, deep))
    sigma, epsilon = sigma6 ** (1 / 6), torch.where(empty, 0.0, deep / (4 * sigma6))
    six = ((sigma[:, None] + sigma) / 2) ** 6
    depth = 4 * (epsilon[:, None] * epsilon).sqrt()
    for given, mean in ((first, depth * six * six), (second, depth * six)):
        if not torch.allclose(given[used][:, used], mean, rtol=1e-9, atol=0):
            raise unsupported(force, "NBFIX pairs, which are not the mean of two sites")
    place = torch.zeros(len(first), dtype=torch.long)
    place[used] = torch.arange(len(used))
    return {"sigma": sigma[place[kinds]], "epsilon": epsilon[place[kinds]]}


_TYPES = {"acoef": "acoef(type1,type2)", "bcoef": "bcoef(type1,type2)"}


def _coefficients(force) -> tuple[Tensor, Tensor]:
    """A and B of A/r^12 - B/r^6, by types."""
    said = Expression.of(force.getEnergyFunction())
    functions = {force.getTabulatedFunctionName(i): i for i in range(force.getNumTabulatedFunctions())}
    plain = said == (f"{_TYPES['acoef']}/r^12-{_TYPES['bcoef']}/r^6", {}, {})
    parts = {"r6": "r^6", "a": _TYPES["acoef"], "b": _TYPES["bcoef"]}
    root = said == ("(a/r6)^2-b/r6", parts, {})
    if not (plain or root) or functions.keys() != _TYPES.keys():
        raise unsupported(force, f"the energy {force.getEnergyFunction()}")
    a, b = (discrete(force.getTabulatedFunction(functions[name])) for name in ("acoef", "bcoef"))
    return (a if plain else a * a), b


def discrete(function: openmm.Discrete2DFunction) -> Tensor:
    """Its values, [x, y]."""
    width, height, values = function.getFunctionParameters()
    return torch.tensor(values, dtype=torch.float64).reshape(height, width).T.contiguous()


def pairs_of_their_own(force: openmm.CustomBondForce, tables: dict) -> dict:
    """The Lennard-Jones energy of CHARMM's 1-4 pairs: the exceptions with it.

    Raises:
        UnsupportedForce: if it is another force, or between pairs that are no exceptions.
    """
    names = [force.getPerBondParameterName(i) for i in range(force.getNumPerBondParameters())]
    said = Expression.of(force.getEnergyFunction())
    factor = re.fullmatch(r"([0-9.e+-]+)\*epsilon\*\(\(sigma/r\)\^12-\(sigma/r\)\^6\)", said.body)
    if not factor or said.parts or said.numbers or sorted(names) != ["epsilon", "sigma"]:
        raise unsupported(force, f"the energy {force.getEnergyFunction()}")
    found = []
    for i in range(force.getNumBonds()):
        first, second, values = force.getBondParameters(i)
        depth = float(factor[1]) / 4 * values[names.index("epsilon")]
        found.append((first, second, 0.0, values[names.index("sigma")], depth))
    own = table(found, 2, _EXCEPTION)
    if force.getNumGlobalParameters() or not _pairs(own["exception_index"]) <= _pairs(tables["exception_index"]):
        raise unsupported(force, "pairs that are no exceptions of the NonbondedForce")
    return _joined(tables, own)


def _joined(tables, more):
    """One row for each pair: two energies A/r^12 - B/r^6 are again one."""
    place = {tuple(sorted(pair)): n for n, pair in enumerate(tables["exception_index"].tolist())}
    rows_of = torch.tensor([place[tuple(sorted(pair))] for pair in more["exception_index"].tolist()], dtype=torch.long)
    a, b = (4 * tables["exception_epsilon"] * tables["exception_sigma"] ** power for power in (12, 6))
    a.index_add_(0, rows_of, 4 * more["exception_epsilon"] * more["exception_sigma"] ** 12)
    b.index_add_(0, rows_of, 4 * more["exception_epsilon"] * more["exception_sigma"] ** 6)
    empty = b == 0
    six = torch.where(empty, 1.0, a / torch.where(empty, 1.0, b))
    return {"exception_sigma": six ** (1 / 6), "exception_epsilon": torch.where(empty, 0.0, b / (4 * six))}


def _pairs(index):
    return {tuple(sorted(pair)) for pair in index.tolist()}
