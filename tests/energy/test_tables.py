"""Terms that few force fields have, each against OpenMM's own; and the tables saved, read back and reordered."""

import math
import re

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from timewarp.energy import Bonded, Potential
from timewarp.energy.cmap import coefficients
from timewarp.forcefield import ForceField
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.export import UnsupportedForce, export
from timewarp.md.partial import export_known
from timewarp.state import Molecule

from .conftest import built, distorted, system_of

ATOMS = 8


def chain(*forces):
    """Eight atoms, not bonded, under `forces`; the topology, the System and 40 random configurations."""
    topology = app.Topology()
    residue = topology.addResidue("ANY", topology.addChain())
    system = openmm.System()
    for atom in range(ATOMS):
        topology.addAtom(f"C{atom}", app.Element.getBySymbol("C"), residue)
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    rng = torch.Generator().manual_seed(3)
    return topology, system, torch.randn(40, ATOMS, 3, generator=rng, dtype=torch.float64)


def compared(*forces):
    """The largest differences of energy and gradient from OpenMM's, and the spread of the energy (kJ/mol, nm)."""
    topology, system, x = chain(*forces)
    energy, slope = OpenMMEnergy(system, platform="Reference").kilojoules(x, gradient=True)
    molecule = export(topology, system, x[0].numpy())
    mine, gradient = Potential(molecule, dtype=torch.float64).kilojoules(x, gradient=True)
    assert energy.isfinite().all()
    return float((mine - energy).abs().max()), float((gradient - slope).abs().max()), float(energy.std())


def ryckaert_bellemans():
    force = openmm.RBTorsionForce()
    force.addTorsion(0, 1, 2, 3, 1.0, -2.0, 3.5, 0.7, -1.3, 2.1)
    force.addTorsion(5, 2, 4, 7, 0.0, 4.0, 0.0, 0.0, 0.0, -3.0)
    return force


def improper(energy, values=((3.0, 0.0), (7.0, 0.0)), names=("k", "theta0")):
    force = openmm.CustomTorsionForce(energy)
    for name in names:
        force.addPerTorsionParameter(name)
    for atom, row in enumerate(values):
        force.addTorsion(atom, atom + 1, atom + 2, atom + 4, [dict(zip(("k", "theta0"), row))[name] for name in names])
    return force


def mapped(*sizes, seed=0):
    force, rng = openmm.CMAPTorsionForce(), np.random.default_rng(seed)
    for size in sizes:
        force.addMap(size, rng.normal(scale=5.0, size=size * size).tolist())
    force.addTorsion(len(sizes) - 1, 0, 1, 2, 3, 1, 2, 3, 4)
    force.addTorsion(0, 7, 5, 3, 1, 0, 2, 4, 6)
    return force


ROUND = ((3.0, 2.5), (7.0, -3.0))
TERMS = {
    "RB torsions": [ryckaert_bellemans()],
    "impropers": [improper("k*(theta-theta0)^2")],
    "impropers, names in another order": [improper("k * (theta - theta0)^2;", names=("theta0", "k"))],
    "impropers around": [
        improper(f"k*min(dtheta, 2*pi-dtheta)^2; dtheta = abs(theta-theta0);pi = {math.pi:f};", ROUND),
        improper(f"k*min(dtheta, 2*{math.pi}-dtheta)^2; dtheta = abs(theta-theta0)", ROUND),
    ],
    "impropers around, halved": [
        improper(
            "0.5*k*(thetap-theta0)^2; thetap = step(-(theta-theta0+pi))*2*pi+theta+step(theta-theta0-pi)*(-2*pi); "
            f"pi = {math.pi:.15g}",
            ROUND,
        )
    ],
    "maps": [mapped(7, 7)],
    "maps of two forces, one of them not used": [mapped(6, 6, 6), mapped(6, seed=1)],
}


@pytest.mark.parametrize("kind", TERMS)
def test_the_term_is_openmms(kind):
    energy, gradient, spread = compared(*TERMS[kind])
    tolerance = 1e-4 if kind == "impropers around" else 1e-9  # one writes pi with six digits
    assert energy < tolerance
    assert gradient < 1e3 * tolerance  # random configurations have torsions near a straight line
    assert spread > 0.5


def test_a_map_passes_through_its_points_with_continuous_second_derivatives():
    grid = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = coefficients(grid)
    torch.testing.assert_close(c[..., 0, 0], grid)
    powers = torch.arange(4, dtype=torch.float64)
    for axis in (1, 2):
        cubic = c if axis == 1 else c.transpose(-1, -2)  # [..., power along the axis, power along the other]
        after = cubic.roll(-1, axis)
        for order in (1, 2):
            weight = powers * (powers - 1 if order == 2 else 1)
            torch.testing.assert_close((weight[:, None] * cubic).sum(-2), weight[order] * after[..., order, :])


def test_an_improper_is_in_the_curvature_that_charts_are_made_from():
    topology, system, x = chain(improper("k*(theta-theta0)^2"))
    molecule = export(topology, system, x[0].numpy())
    energy = Potential(molecule, 310.0, dtype=torch.float64)(x)
    torch.testing.assert_close(Bonded(molecule, 310.0)(x), energy)


def test_a_torsion_that_is_not_defined_is_infinite_alone():
    topology, system, x = chain(mapped(5))
    x[1, 2] = torch.nan
    molecule = export(topology, system, x[0].numpy())
    energy, gradient = Potential(molecule, dtype=torch.float64).kilojoules(x[:3], gradient=True)
    assert energy.isinf().tolist() == [False, True, False]
    assert gradient.isfinite().all()


def changed(system, kind, change):
    (force,) = (f for f in system.getForces() if type(f) is kind)
    change(force)
    return system


def site(**others):
    """Charges and CHARMM's own Lennard-Jones force on eight atoms of two types; `others` are what is wrong with it."""
    charges = openmm.NonbondedForce()
    charges.setNonbondedMethod(others.get("method", openmm.NonbondedForce.NoCutoff))
    force = openmm.CustomNonbondedForce(others.get("energy", "acoef(type1, type2)/r^12 - bcoef(type1, type2)/r^6;"))
    sigma, epsilon = np.array([0.3, 0.4]), np.array([0.5, others.get("second", 0.2)])
    six, depth = (0.5 * (sigma[:, None] + sigma)) ** 6, 4 * np.sqrt(epsilon[:, None] * epsilon)
    depth[0, 1] = depth[1, 0] = depth[0, 1] * others.get("nbfix", 1.0)
    root = "(a/r6)" in force.getEnergyFunction()
    a, b = (np.sqrt(depth) * six if root else depth * six**2), depth * six
    force.addTabulatedFunction("acoef", openmm.Discrete2DFunction(2, 2, a.T.ravel().tolist()))
    force.addTabulatedFunction("bcoef", openmm.Discrete2DFunction(2, 2, b.T.ravel().tolist()))
    force.addPerParticleParameter("type")
    for atom in range(ATOMS):
        charges.addParticle((-1) ** atom * 0.4, 1.0, others.get("epsilon", 0.0))
        force.addParticle([atom % 2])
    for atom in range(ATOMS - 1):
        charges.addException(atom, atom + 1, 0.05, 0.3, 0.1 if atom == 2 else 0.0)
        if not ("exclusion" in others and atom == 3):
            force.addExclusion(atom + 1, atom)
    own = openmm.CustomBondForce("2*epsilon*((sigma/r)^12-(sigma/r)^6)")
    own.addPerBondParameter("epsilon")
    own.addPerBondParameter("sigma")
    own.addBond(3, 2, [0.3, 0.35])
    own.addBond(others.get("bond", 5), 4, [0.6, 0.31])
    # a reader must not need the charges first
    return [force, own, charges] if "bare" not in others else [force]


ROOT = "(a/r6)^2-b/r6; r6=r^6;a=acoef(type1, type2);b=bcoef(type1, type2)"


@pytest.mark.parametrize("others", [{}, {"energy": ROOT}, {"second": 0.0}], ids=["plain", "root", "no depth"])
def test_lennard_jones_of_its_own_force(others):
    energy, gradient, spread = compared(*site(**others))
    assert energy < 1e-9 * spread
    assert gradient < 1e-7 * spread
    tables = export(*chain(*site(**others))[:2], np.zeros((ATOMS, 3))).forcefield
    assert len(tables.exception_index) == ATOMS - 1  # a pair that both forces have is one row


def born_changed(text, to, which):
    """A GBn2 solvent with one thing of it otherwise."""
    system = system_of("AA", "amber14-all.xml", "implicit/gbn2.xml")
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.CustomGBForce))
    get, put = (getattr(force, f"{verb}{which}Parameters") for verb in ("get", "set"))
    found = 0
    for i in range(getattr(force, f"getNum{which}s")()):
        *before, expression, kind = get(i)
        found += text in expression
        put(i, *before, expression.replace(text, to), kind)
    assert found
    return system


REFUSED = {
    "an integral that is not known": lambda: born_changed("0.3*1000000", "0.2*1000000", "ComputedValue"),
    "a radius that is not known": lambda: born_changed("alpha*psi", "2*alpha*psi", "ComputedValue"),
    "a pair term that is not known": lambda: born_changed("exp(-r^2/(4*B1*B2))", "exp(-r^2/(5*B1*B2))", "EnergyTerm"),
    "a surface that is not known": lambda: born_changed("radius+0.14", "radius+0.15", "EnergyTerm"),
    "terms that do not agree": lambda: born_changed(
        "charge^2/B; solventDielectric=78.5", "charge^2/B; solventDielectric=70", "EnergyTerm"
    ),
    "NBFIX": lambda: chain(*site(nbfix=1.1))[1],
    "two kinds of sites": lambda: chain(*site(epsilon=0.3))[1],
    "another cutoff": lambda: chain(*site(method=openmm.NonbondedForce.CutoffNonPeriodic))[1],
    "other exclusions": lambda: chain(*site(exclusion=True))[1],
    "a pair that is no exception": lambda: chain(*site(bond=7))[1],
    "no charges": lambda: chain(*site(bare=True))[1],
    "another force of this kind": lambda: chain(openmm.CustomBondForce("r^2"), openmm.NonbondedForce())[1],
    "another improper": lambda: chain(improper("k*(theta-theta0)^4"))[1],
    "an improper with a jump": lambda: chain(improper("k*(theta-theta0)^2", ROUND))[1],
    "maps of two sizes": lambda: chain(mapped(5, 6))[1],
    "maps of two sizes in two forces": lambda: chain(mapped(5), mapped(6))[1],
    "a periodic torsion": lambda: changed(
        chain(improper("k*(theta-theta0)^2"))[1],
        openmm.CustomTorsionForce,
        lambda f: f.setUsesPeriodicBoundaryConditions(True),
    ),
    "a force of another kind": lambda: chain(openmm.CustomExternalForce("x^2"))[1],
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_read_wrongly_is_refused_by_name(kind):
    system = REFUSED[kind]()
    topology = built("AA").topology if system.getNumParticles() > ATOMS else chain()[0]
    positions = np.zeros((system.getNumParticles(), 3))
    names = {type(force).__name__ for force in system.getForces()}
    with pytest.raises(UnsupportedForce, match="the batched potential does not know") as raised:
        export(topology, system, positions)
    (named,) = re.findall(r"know (\w+Force)", str(raised.value))
    assert named in names
    # the rest of the tables can be had
    _, reasons = export_known(topology, system, positions)
    assert any(named in reason for reason in reasons)


def test_virtual_sites_are_refused():
    topology, system, x = chain(ryckaert_bellemans())
    system.setParticleMass(0, 0)
    system.setVirtualSite(0, openmm.TwoParticleAverageSite(1, 2, 0.5, 0.5))
    with pytest.raises(UnsupportedForce, match="without virtual sites"):
        export(topology, system, x[0].numpy())


@pytest.fixture(scope="module")
def rich():
    """A molecule with every kind of table, and configurations of it."""
    prepared = built("GAG")  # only residues within a chain have maps
    system = system_of("GAG", "amber19/protein.ff19SB.xml", "implicit/gbn2.xml")
    system.addForce(improper("k*(theta-theta0)^2"))
    return export(prepared.topology, system, prepared.positions), distorted(prepared.positions, 0.005, 3)


def test_tables_are_read_back_as_saved(rich):
    molecule, x = rich
    flat = molecule.arrays()
    assert all(isinstance(value, torch.Tensor) for value in flat.values())
    again = Molecule.from_arrays(flat)
    energy = Potential(molecule, dtype=torch.float64)(x)
    torch.testing.assert_close(Potential(again, dtype=torch.float64)(x), energy, rtol=0, atol=0)
    for new in ("forcefield.born.neck_", "forcefield.map_", "forcefield.improper_"):
        less = Molecule.from_arrays({name: value for name, value in flat.items() if not name.startswith(new)})
        assert (Potential(less, dtype=torch.float64)(x) != energy).all()  # each of them matters


def test_tables_of_before_are_read(rich):
    flat = rich[0].forcefield.arrays()
    old = {name: value for name, value in flat.items() if not name.startswith(("born.neck", "map_", "improper_"))}
    old |= {f"born.{name}": torch.tensor(value) for name, value in (("alpha", 1.0), ("beta", 0.8), ("gamma", 4.85))}
    tables = ForceField.from_arrays(old)
    assert tables.born.neck_depth is None
    assert (tables.born.alpha, tables.born.beta, tables.born.gamma) == pytest.approx((1.0, 0.8, 4.85))
    assert (tables.map_index.shape, tables.improper_index.shape) == ((0, 8), (0, 4))


def test_permuting_atoms_permutes_every_table(rich):
    molecule, x = rich
    order = torch.randperm(molecule.atoms, generator=torch.Generator().manual_seed(1))
    energy, gradient = Potential(molecule, dtype=torch.float64).kilojoules(x, gradient=True)
    other = Potential(molecule.permuted(order), dtype=torch.float64)
    same, permuted = other.kilojoules(x[:, order], gradient=True)
    torch.testing.assert_close(same, energy)
    torch.testing.assert_close(permuted, gradient[:, order])
