"""The batched energy is OpenMM's, on frames of MD and for every setting that it claims to know.

`python -m pytest tests/energy/test_parity.py -m long -s` prints the table of errors over 200 frames of ten peptides.
"""

import openmm
import pytest
import torch

from timewarp.energy import Potential
from timewarp.kernel import run
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.export import UnsupportedForce, export
from timewarp.md.reference import LangevinMD
from timewarp.state import State

from .conftest import built, distorted, system_of

SHORT = ["GLY-NH2", "WH", "ACE-HID-HIE-NME"]
LONG = [
    "GLY-NH2", "AA", "WH", "PG", "ACE-ALA-NME", "ACE-HID-HIP-HIE-NME", "ACE-ASH-LYN-GLH-NH2", "CYX-GLY-CYX", "KLLR",
    "FYYY",
]  # fmt: skip
AMBER = "amber14-all.xml"


def frames(prepared, count, chains, interval):
    """`count` frames of unconstrained MD at 310 K, [count, atoms, 3] in nm."""
    md = LangevinMD.of(prepared, "paper", 310.0, interval, chains)
    rng = torch.Generator().manual_seed(7)
    phase = md.init(State.at(torch.tensor(prepared.positions).expand(chains, -1, -1), 3, rng))
    found = []
    for _, info in run(md, phase, -(-count // (chains * md.frames)), rng):
        found += list(info["positions"].flatten(0, 1))
    return torch.stack(found[-count:])


def errors(prepared, system, positions):
    """Largest error of energy and force, in float64 and in float32 (kJ/mol, kJ/mol/nm)."""
    molecule = export(prepared.topology, system, prepared.positions)
    energy, slope = OpenMMEnergy(system, platform="Reference").kilojoules(positions, gradient=True)
    for dtype in (torch.float64, torch.float32):
        mine, gradient = Potential(molecule, dtype=dtype).kilojoules(positions.to(dtype), gradient=True)
        yield float((mine - energy).abs().max()), float((gradient - slope).abs().max())


@pytest.mark.parametrize("sequence", SHORT)
def test_frames_of_md(sequence):
    prepared = built(sequence)
    double, single = errors(prepared, prepared.system, frames(prepared, 6, 2, 0.1))
    assert double[0] < 1e-6
    assert double[1] < 1e-6
    assert single[0] < 5e-3
    assert single[1] < 0.5


@pytest.mark.long
def test_table():
    print(f"\n{'peptide':<22}{'atoms':>6}{'U min':>10}{'U max':>10}", end="")
    print(f"{'float64 dU':>12}{'dF':>10}{'float32 dU':>12}{'dF':>10}")
    for sequence in LONG:
        prepared = built(sequence)
        x = frames(prepared, 200, 4, 0.1)
        energy = OpenMMEnergy(prepared.system).kilojoules(x)[0]
        double, single = errors(prepared, prepared.system, x)
        print(f"{sequence:<22}{len(prepared.positions):>6}{energy.min():>10.1f}{energy.max():>10.1f}", end="")
        print(f"{double[0]:>12.1e}{double[1]:>10.1e}{single[0]:>12.1e}{single[1]:>10.1e}", flush=True)
        assert double[0] < 1e-3
        assert double[1] < 1e-2


SETTINGS = {
    "vacuum": ([AMBER], {}),
    "vacuum, cutoff": ([AMBER], {"cutoff": 0.6}),
    "hct": ([AMBER, "implicit/hct.xml"], {}),
    "hct, cutoff": ([AMBER, "implicit/hct.xml"], {"cutoff": 0.6}),
    "hct, salt": ([AMBER, "implicit/hct.xml"], {"implicitSolventKappa": 1.5}),
    "obc1": ([AMBER, "implicit/obc1.xml"], {}),
    "obc1, cutoff": ([AMBER, "implicit/obc1.xml"], {"cutoff": 0.6}),
    "obc1, no surface": ([AMBER, "implicit/obc1.xml"], {"sasaMethod": None}),
    "obc1, salt": ([AMBER, "implicit/obc1.xml"], {"implicitSolventKappa": 1.5}),
    "obc2": ([AMBER, "implicit/obc2.xml"], {}),
    "obc2, cutoff": ([AMBER, "implicit/obc2.xml"], {"cutoff": 0.6}),
    "obc2, salt, cutoff": ([AMBER, "implicit/obc2.xml"], {"implicitSolventKappa": 1.5, "cutoff": 0.6}),
    "obc2, dielectrics": ([AMBER, "implicit/obc2.xml"], {"soluteDielectric": 2.0, "solventDielectric": 20.0}),
    "GBSAOBCForce": (["amber99sb.xml", "amber99_obc.xml"], {}),
    "GBSAOBCForce, cutoff": (["amber99sb.xml", "amber99_obc.xml"], {"cutoff": 0.6}),
    "GBSAOBCForce, dielectrics": (
        ["amber99sb.xml", "amber99_obc.xml"],
        {"soluteDielectric": 2.0, "solventDielectric": 20.0},
    ),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(setting):
    files, options = SETTINGS[setting]
    prepared = built("AFD")
    system = system_of("AFD", *files, **options)
    x = distorted(prepared.positions, 0.005, 3)
    if "cutoff" in options:
        far = torch.cdist(x, x) > options["cutoff"]
        assert 0.2 < far.float().mean() < 0.8  # both sides of the cutoff are seen
    double, single = errors(prepared, system, x)
    assert double[0] < 1e-5
    assert double[1] < 1e-5
    assert single[0] < 1e-2


@pytest.mark.parametrize("scale", [0.02, 0.1])
def test_spheres_within_spheres(scale):
    # the solvent alone: at such distances Lennard-Jones would drown it
    system = system_of("AFD", AMBER, "implicit/obc2.xml")
    for index in reversed(range(system.getNumForces())):
        if not isinstance(system.getForce(index), openmm.CustomGBForce):
            system.removeForce(index)
    prepared = built("AFD")
    molecule = export(prepared.topology, system, prepared.positions)
    x = scale * distorted(prepared.positions, 0.005, 2)
    own, other = molecule.forcefield.born.radius[:, None], molecule.forcefield.born.scaled
    apart = torch.cdist(x, x) + torch.eye(len(own))
    assert (apart + other < own).any()  # the other sphere is inside an atom's own
    assert ((other - apart) > own).any() == (scale < 0.1)  # and the other way round
    energy, slope = OpenMMEnergy(system, platform="Reference").kilojoules(x, gradient=True)
    mine, gradient = Potential(molecule, dtype=torch.float64).kilojoules(x, gradient=True)
    torch.testing.assert_close(mine, energy, rtol=1e-7, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-9 * float(slope.abs().max()))


def test_reaction_field_dielectric():
    prepared = built("AFD")
    system = system_of("AFD", AMBER, cutoff=0.6)
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.setReactionFieldDielectric(5.0)
    double, _ = errors(prepared, system, distorted(prepared.positions, 0.005, 3))
    assert max(double) < 1e-6


def test_terms_of_one_kind_in_several_forces():
    prepared = built("AG")
    system = openmm.XmlSerializer.clone(prepared.system)
    more = openmm.PeriodicTorsionForce()
    more.addTorsion(0, 1, 2, 3, 3, 0.4, 7.0)
    system.addForce(more)
    x = distorted(prepared.positions, 0.005, 2)
    assert max(next(errors(prepared, system, x))) < 1e-6
    change = OpenMMEnergy(system).kilojoules(x)[0] - OpenMMEnergy(prepared.system).kilojoules(x)[0]
    assert (change.abs() > 0.1).all()  # the added term is seen


def switched():
    system = system_of("AA", AMBER, cutoff=1.0)
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.setUseSwitchingFunction(True)
    return system


UNKNOWN = {
    "gbn2": (lambda: system_of("AA", AMBER, "implicit/gbn2.xml"), "CustomGBForce"),
    "CMAP": (lambda: system_of("AA", "amber19/protein.ff19SB.xml"), "CMAPTorsionForce"),
    "constraints": (lambda: system_of("AA", AMBER, constraints=openmm.app.HBonds), "without constraints"),
    "LCPO": (lambda: system_of("AA", AMBER, "implicit/obc1.xml", sasaMethod="LCPO"), "LCPO"),
    "switching": (switched, "switching function"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_is_refused_by_name(kind):
    make, said = UNKNOWN[kind]
    prepared = built("AA")
    with pytest.raises(UnsupportedForce, match=said):
        export(prepared.topology, make(), prepared.positions)
