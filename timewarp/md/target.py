"""What a Simulation samples, frozen: its potential, its temperature, and whether a flow can move it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from jaxtyping import Float
from openmm import app, unit

from timewarp.md.faults import InputError


@dataclass(frozen=True)
class Condition:
    """What the density of positions depends on: K, the parameters of the Context, and the System where it varies."""

    temperature: float
    parameters: tuple[tuple[str, float], ...] = ()
    system: str = ""

    @classmethod
    def of(cls, context: openmm.Context, temperature: float, system: str = "") -> Condition:
        """The present condition of a Context at `temperature` (K)."""
        found = dict(context.getParameters())
        for force in context.getSystem().getForces():
            for name in ("Temperature", "CollisionFrequency"):  # of a thermostat: they do not enter the energy
                if hasattr(type(force), name):
                    found.pop(getattr(type(force), name)(), None)
        return cls(temperature, tuple(sorted((name, float(value)) for name, value in found.items())), system)


@dataclass(frozen=True)
class Target:
    """The density exp(-U(x)/kT) of a peptide's positions.

    Attributes:
        topology: atoms and bonds.
        system: the potential, with the parameters of the Context as its defaults.
        temperature: K.
        positions: nm, a geometry that tells chirality and cis/trans.
        platform: the name of the OpenMM platform that the dynamics run on.
    """

    topology: app.Topology
    system: openmm.System
    temperature: float
    positions: Float[np.ndarray, "atoms 3"]
    platform: str


def temperature_of(context: openmm.Context) -> float:
    """The temperature in K that the integrator of a Context, or its thermostat, keeps.

    Raises:
        InputError: if nothing keeps one.
    """
    integrator = context.getIntegrator()
    if hasattr(integrator, "getTemperature"):
        return kelvin(integrator.getTemperature())
    name = openmm.AndersenThermostat.Temperature()
    if name in context.getParameters():
        return float(context.getParameter(name))
    raise InputError(
        f"expected an integrator or a thermostat that keeps a temperature, found {type(integrator).__name__} alone; "
        "use LangevinMiddleIntegrator, or say temperature=310*kelvin where the integrator does not tell it"
    )


def kelvin(temperature: float | unit.Quantity) -> float:
    """A temperature in K; a bare number is in K."""
    bare: Any = temperature.value_in_unit(unit.kelvin) if isinstance(temperature, unit.Quantity) else temperature
    return float(bare)


def frozen(system: openmm.System, condition: Condition, groups: int = -1) -> openmm.System:
    """A copy of the System with the parameters of `condition` for defaults.

    Args:
        groups: the force groups that are integrated, as bits; forces of the others are left out.
    """
    copy = openmm.XmlSerializer.clone(system)
    values = dict(condition.parameters)
    for index in reversed(range(copy.getNumForces())):
        force = copy.getForce(index)
        if not groups >> force.getForceGroup() & 1:
            copy.removeForce(index)
        elif hasattr(force, "getNumGlobalParameters"):
            for i in range(force.getNumGlobalParameters()):
                name = force.getGlobalParameterName(i)
                if name in values:
                    force.setGlobalParameterDefaultValue(i, values[name])
    return copy
