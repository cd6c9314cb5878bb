"""The energy of a run is compared with OpenMM before anything is sampled."""

from dataclasses import fields, replace
from functools import cache

import openmm
import pytest
import torch
from openmm import app

from timewarp.assemble.energy import EnergyMismatch, energy_of
from timewarp.energy import Potential
from timewarp.md import export as exported
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.system import prepare_sequence

built = cache(prepare_sequence)
AMBER, FF19SB = "amber14-all.xml", "amber19/protein.ff19SB.xml"
SETTINGS = ("solute_dielectric", "solvent_dielectric", "surface", "offset", "alpha", "beta", "gamma", "kappa", "cutoff")


def with_system(sequence, *files, **options):
    prepared = built(sequence)
    options = {"nonbondedMethod": app.NoCutoff} | options
    return replace(prepared, system=app.ForceField(*files).createSystem(prepared.topology, **options))


@pytest.mark.parametrize("sequence", ["GLY-NH2", "ACE-HIP-NME", "KWD"])
def test_the_batched_potential_is_taken_where_it_agrees(sequence):
    energy, molecule, notices = energy_of(built(sequence), 300.0)
    assert isinstance(energy, Potential)
    assert (energy.temperature, energy.evaluations, notices) == (300.0, 0, ())
    expected = OpenMMEnergy(built(sequence).system, 300.0)(molecule.reference)
    assert float(energy(molecule.reference)) == pytest.approx(float(expected), abs=5e-3)


def wrong(molecule, name):
    """The molecule with one entry of one table wrong by 2 %, by 0.02 rad where it is an angle, by 1 where it counts."""
    tables = molecule.forcefield
    born = tables.born
    if name in SETTINGS:
        change = 0.02 * (getattr(born, name) or 1.0)
        return replace(molecule, forcefield=replace(tables, born=replace(born, **{name: getattr(born, name) + change})))
    own = name.removeprefix("born_")
    values = getattr(born if own != name else tables, own).clone()
    # an entry that matters: a phase without a barrier, or a size without a depth, is no error
    weight = {"torsion_phase": tables.torsion_barrier, "exception_sigma": tables.exception_epsilon}
    worst = int(weight.get(name, (values - values.mean()).abs()).argmax())
    small = 0.02 if "phase" in name or name == "angle_value" else 0.02 * values[worst]
    values[worst] += 1 if "periodicity" in name else small
    if own != name:
        return replace(molecule, forcefield=replace(tables, born=replace(born, **{own: values})))
    return replace(molecule, forcefield=replace(tables, **{name: values}))


def tables_of(molecule):
    tables = molecule.forcefield
    names = [f.name for f in fields(tables) if isinstance(getattr(tables, f.name), torch.Tensor)]
    return [n for n in names if not n.endswith("index") and getattr(tables, n).numel()] + [
        "born_radius",
        "born_scaled",
        "born_charge",
    ]


TABLES = [
    "bond_length", "bond_stiffness", "angle_value", "angle_stiffness", "torsion_periodicity", "torsion_phase",
    "torsion_barrier", "charge", "sigma", "epsilon", "exception_charge", "exception_sigma", "exception_epsilon",
    "born_radius", "born_scaled", "born_charge",
]  # fmt: skip


def test_the_tables_below_are_all_there_are():
    molecule = energy_of(built("ACE-HIP-NME"), 300.0)[1]
    assert sorted(tables_of(molecule)) == sorted(TABLES)


@pytest.mark.parametrize("name", [*TABLES, *SETTINGS])
def test_one_wrong_number_is_refused(monkeypatch, name):
    right = exported.export
    monkeypatch.setattr(exported, "export", lambda *parts: wrong(right(*parts), name))
    with pytest.raises(EnergyMismatch) as raised:
        energy_of(built("ACE-HIP-NME"), 300.0)
    said = str(raised.value)
    assert said.startswith("expected the batched potential to agree with OpenMM within 0.01 kJ/mol, got ")
    assert "\n" not in said


@pytest.mark.parametrize(("index", "size"), [("bond_index", 2), ("angle_index", 3), ("torsion_index", 4)])
def test_a_swapped_atom_is_refused(monkeypatch, index, size):
    right = exported.export

    def swapped(*parts):
        molecule = right(*parts)
        table = getattr(molecule.forcefield, index).clone()
        table[[0, -1], 0] = table[[-1, 0], 0]
        return replace(molecule, forcefield=replace(molecule.forcefield, **{index: table}))

    monkeypatch.setattr(exported, "export", swapped)
    with pytest.raises(EnergyMismatch):
        energy_of(built("ACE-HIP-NME"), 300.0)


def pulled(prepared):
    """With a force that pulls each atom to the origin."""
    system = openmm.XmlSerializer.clone(prepared.system)
    force = openmm.CustomExternalForce("x^2+y^2+z^2")
    for atom in range(system.getNumParticles()):
        force.addParticle(atom)
    system.addForce(force)
    return replace(prepared, system=system)


UNKNOWN = {
    "LCPO": (lambda: with_system("AS", AMBER, "implicit/obc1.xml", sasaMethod="LCPO"), "LCPO"),
    "pull": (lambda: pulled(built("AS")), "CustomExternalForce"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_force_that_is_not_known_is_left_to_openmm_and_named(kind):
    make, named = UNKNOWN[kind]
    prepared = make()
    energy, molecule, (notice,) = energy_of(prepared, 300.0)
    assert isinstance(energy, OpenMMEnergy)
    assert named in notice
    expected = OpenMMEnergy(prepared.system, 300.0, "Reference")(molecule.reference)
    assert float(energy(molecule.reference)) == pytest.approx(float(expected), abs=1e-3)
    # what is known is in the tables, which charts and tokens need
    assert len(molecule.forcefield.bond_index) == len(molecule.bonds)
    assert (molecule.forcefield.charge != 0).all()
    assert molecule.forcefield.born is not None


@pytest.mark.parametrize("files", [(FF19SB, "implicit/gbn2.xml"), (AMBER, "implicit/gbn.xml")])
def test_other_force_fields_are_batched_too(files):
    energy, _, notices = energy_of(with_system("ACE-CYS-NME", *files), 300.0)
    assert isinstance(energy, Potential)
    assert notices == ()


def test_constraints_are_refused():
    with pytest.raises(exported.UnsupportedForce, match="without constraints"):
        energy_of(with_system("AS", AMBER, constraints=app.HBonds), 300.0)
