"""From an `openmm.System` to a `Molecule`: the force field as arrays, for energies that know no OpenMM."""

from __future__ import annotations

import re

import numpy as np
import openmm
import torch
from openmm import app, unit

from timewarp.forcefield import ForceField, GeneralizedBorn
from timewarp.state import Molecule

_COLUMNS = {"bond_index": 2, "angle_index": 3, "torsion_index": 4, "exception_index": 2} | dict.fromkeys(
    [
        "bond_length",
        "bond_stiffness",
        "angle_value",
        "angle_stiffness",
        "torsion_periodicity",
        "torsion_phase",
        "torsion_barrier",
        "exception_charge",
        "exception_sigma",
        "exception_epsilon",
    ],
    0,
)


class UnsupportedForce(ValueError):
    """The System has a force whose energy the batched potential does not know."""


def export(topology: app.Topology, system: openmm.System, positions: np.ndarray) -> Molecule:
    """The molecule with its tables (float64).

    Args:
        topology: for the elements and the covalent bonds.
        system: its HarmonicBond, HarmonicAngle, PeriodicTorsion, Nonbonded and implicit-solvent forces are read.
        positions: prepared geometry, nm, [atoms, 3].

    Raises:
        UnsupportedForce: naming the force, if it is of another kind or has a setting that is not known.
    """
    tables: dict = {}
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            _merge(tables, _bonds(force))
        elif isinstance(force, openmm.HarmonicAngleForce):
            _merge(tables, _angles(force))
        elif isinstance(force, openmm.PeriodicTorsionForce):
            _merge(tables, _torsions(force))
        elif isinstance(force, openmm.NonbondedForce):
            _merge(tables, _nonbonded(force))
        elif isinstance(force, openmm.CustomGBForce):
            _merge(tables, {"born": _custom_born(force)})
        elif isinstance(force, openmm.GBSAOBCForce):
            _merge(tables, {"born": _obc(force)})
        elif not isinstance(force, openmm.CMMotionRemover):
            raise UnsupportedForce(f"the batched potential does not know {force.getName()} ({type(force).__name__})")
    if system.getNumConstraints():
        raise UnsupportedForce("the batched potential expects a System without constraints")
    atoms = system.getNumParticles()
    for name, columns in _COLUMNS.items():
        shape = (0, columns) if columns else (0,)
        tables.setdefault(name, torch.zeros(shape, dtype=torch.long if columns else torch.float64))
    for name in ("charge", "sigma", "epsilon"):
        tables.setdefault(name, torch.zeros(atoms, dtype=torch.float64))
    bonds = [(a.index, b.index) for a, b in topology.bonds()]
    return Molecule(
        elements=torch.tensor([a.element.atomic_number if a.element else 0 for a in topology.atoms()]),
        masses=torch.tensor([system.getParticleMass(i)._value for i in range(system.getNumParticles())]).double(),
        bonds=torch.tensor(bonds).reshape(-1, 2),
        reference=torch.as_tensor(np.asarray(positions), dtype=torch.float64),
        forcefield=ForceField(**tables),
    )


def _merge(tables, new):
    for name, value in new.items():
        if name in tables and name not in ("cutoff", "dielectric"):
            if not isinstance(value, torch.Tensor) or name in ("charge", "sigma", "epsilon"):
                raise UnsupportedForce("the batched potential expects one nonbonded and one implicit-solvent force")
            value = torch.cat([tables[name], value])
        tables[name] = value


def _table(rows, indices, names):
    rows = [[v._value if unit.is_quantity(v) else v for v in row] for row in rows]
    index = torch.tensor([row[:indices] for row in rows], dtype=torch.long).reshape(-1, indices)
    values = torch.tensor([row[indices:] for row in rows], dtype=torch.float64).reshape(-1, len(names) - 1)
    return dict(zip(names, [index, *values.unbind(1)], strict=True))


def _bonds(force):
    rows = [force.getBondParameters(i) for i in range(force.getNumBonds())]
    return _table(rows, 2, ["bond_index", "bond_length", "bond_stiffness"])


def _angles(force):
    rows = [force.getAngleParameters(i) for i in range(force.getNumAngles())]
    return _table(rows, 3, ["angle_index", "angle_value", "angle_stiffness"])


def _torsions(force):
    rows = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    return _table(rows, 4, ["torsion_index", "torsion_periodicity", "torsion_phase", "torsion_barrier"])


def _nonbonded(force):
    methods = {openmm.NonbondedForce.NoCutoff: False, openmm.NonbondedForce.CutoffNonPeriodic: True}
    if force.getNonbondedMethod() not in methods:
        raise UnsupportedForce("the batched potential expects NoCutoff or CutoffNonPeriodic, found a periodic method")
    cut = methods[force.getNonbondedMethod()]
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise UnsupportedForce("the batched potential does not know parameter offsets of the NonbondedForce")
    if cut and force.getUseSwitchingFunction():
        raise UnsupportedForce("the batched potential does not know the switching function of the NonbondedForce")
    atoms = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, sigma, epsilon = torch.tensor([[v._value for v in row] for row in atoms], dtype=torch.float64).unbind(1)
    rows = [force.getExceptionParameters(i) for i in range(force.getNumExceptions())]
    names = ["exception_index", "exception_charge", "exception_sigma", "exception_epsilon"]
    return _table(rows, 2, names) | {
        "charge": charge,
        "sigma": sigma,
        "epsilon": epsilon,
        "cutoff": force.getCutoffDistance()._value if cut else 0.0,
        "dielectric": force.getReactionFieldDielectric(),
    }


def _obc(force):
    rows = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, radius, scale = torch.tensor(
        [[v._value if unit.is_quantity(v) else v for v in row] for row in rows], dtype=torch.float64
    ).unbind(1)
    offset = 0.009
    cut = force.getNonbondedMethod() == openmm.GBSAOBCForce.CutoffNonPeriodic
    if not cut and force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        raise UnsupportedForce("the batched potential expects NoCutoff or CutoffNonPeriodic, found a periodic method")
    return GeneralizedBorn(
        radius=radius - offset,
        scaled=scale * (radius - offset),
        charge=charge,
        alpha=1.0,
        beta=0.8,
        gamma=4.85,
        solute_dielectric=force.getSoluteDielectric(),
        solvent_dielectric=force.getSolventDielectric(),
        surface=4 * np.pi * force.getSurfaceAreaEnergy()._value,
        coulomb=138.93545764438198,
        cutoff=force.getCutoffDistance()._value if cut else 0.0,
    )


_INTEGRAL = (
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0);"
    "U=r+sr2;L=max(or1,D);D=abs(r-sr2)"
)
_OBC = r"1/(1/or-tanh\((?P<poly>[-+0-9.*psi^]+)\)/radius\);psi=I\*or;radius=or\+offset;offset=(?P<offset>[0-9.e-]+)"


def _custom_born(force):
    """Recognise the HCT and OBC models of OpenMM's `implicit/` files by their expressions."""

    def refuse(what):
        return UnsupportedForce(f"the batched potential does not know this CustomGBForce ({what})")

    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    if names[:3] != ["charge", "or", "sr"] or force.getNumComputedValues() != 2 or force.getNumTabulatedFunctions():
        raise refuse("parameters " + ", ".join(names))
    values = [force.getComputedValueParameters(i)[1].replace(" ", "") for i in range(2)]
    if values[0] != _INTEGRAL:
        raise refuse("its Born integral")
    hct = re.fullmatch(r"1/\(1/or-I\);?", values[1])
    obc = re.fullmatch(_OBC.replace("1/(1/or", r"1/\(1/or"), values[1])
    if not hct and not obc:
        raise refuse("its Born radius")
    model = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0}
    if obc:
        terms = re.fullmatch(r"([0-9.]*)\*?psi(?:-([0-9.]+)\*psi\^2)?\+([0-9.]+)\*psi\^3", obc["poly"])
        if not terms:
            raise refuse("its Born radius")
        model = {"alpha": float(terms[1] or 1), "beta": float(terms[2] or 0), "gamma": float(terms[3])}
    setting: dict[str, float] = {}
    kinds = []
    for i in range(force.getNumEnergyTerms()):
        expression, _ = force.getEnergyTermParameters(i)
        body, *rest = expression.replace(" ", "").split(";")
        for part in rest:
            name, _, value = part.partition("=")
            if re.fullmatch(r"[0-9.e+-]+", value):
                setting[name] = float(value)
        kinds.append(body)
    offset = setting.get("offset", 0.009)
    cut = force.getNonbondedMethod() == openmm.CustomGBForce.CutoffNonPeriodic
    cutoff = force.getCutoffDistance()._value if cut else 0.0
    kappa = setting.get("kappa", 0.0)
    tau = "(1/soluteDielectric-" + ("exp(-kappa*{0})" if kappa else "1") + "/solventDielectric)"
    shift = f"*(1/f-{1 / cutoff})" if cut else "/f"
    known = {
        f"-0.5*138.935485*{tau.format('B')}*charge^2/B": "self",
        "28.3919551*(radius+0.14)^2*(radius/B)^6": "surface",
        f"-138.935485*{tau.format('f')}*charge1*charge2{shift}": "pair",
    }
    found = [known.get(kind) for kind in kinds]
    if None in found or not {"self", "pair"} <= set(found):
        raise refuse("its energy terms")
    rows = torch.tensor(
        [force.getParticleParameters(i)[:3] for i in range(force.getNumParticles())], dtype=torch.float64
    )
    return GeneralizedBorn(
        charge=rows[:, 0].clone(),
        radius=rows[:, 1].clone(),
        scaled=rows[:, 2].clone(),
        offset=offset,
        solute_dielectric=setting["soluteDielectric"],
        solvent_dielectric=setting["solventDielectric"],
        kappa=kappa,
        surface=28.3919551 if "surface" in found else 0.0,
        cutoff=cutoff,
        **model,
    )
