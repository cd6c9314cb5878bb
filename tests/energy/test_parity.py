"""The batched energy is OpenMM's, on frames of MD and for every setting that it claims to know.

`PARITY_FRAMES=1000 python -m pytest tests/energy/test_parity.py -m long -s` prints the table of errors of forty
peptides under each force field: on that many frames of MD, and on as many distorted by 0.01 to 0.02 nm.
`PARITY_OTHERS` is the number for all force fields but the first, if fewer are wanted; `PARITY_PEPTIDES` one like
`0:10` for a part of the forty.
"""

import os
from dataclasses import replace

import openmm
import pytest
import torch
from openmm import app

from timewarp.energy import Potential
from timewarp.kernel import run
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.export import UnsupportedForce, export
from timewarp.md.reference import LangevinMD
from timewarp.state import State

from .conftest import built, distorted, system_of
from .sequences import caps_joined, forty

SHORT = ["GLY-NH2", "WH", "ACE-HID-HIE-NME"]
AMBER, FF19SB, CHARMM = "amber14-all.xml", "amber19/protein.ff19SB.xml", "charmm36.xml"


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


FIELDS = {
    "amber14, obc1": (AMBER, "implicit/obc1.xml"),
    "amber14, gbn2": (AMBER, "implicit/gbn2.xml"),
    "ff19SB, vacuum": (FF19SB,),
    "ff19SB, gbn2": (FF19SB, "implicit/gbn2.xml"),
    "CHARMM36, obc2": (CHARMM, "implicit/obc2.xml"),
    "CHARMM36, vacuum": (CHARMM,),
}


def systems(prepared):
    """The peptide's System under each of `FIELDS`, without a cutoff (the first: that of the preset)."""
    found = {"amber14, obc1": prepared.system}
    for name, files in FIELDS.items():
        if name not in ("amber14, obc1", "CHARMM36, obc2", "CHARMM36, vacuum"):
            found[name] = app.ForceField(*files).createSystem(prepared.topology, removeCMMotion=False)
    joined = caps_joined(prepared.topology)
    names = [residue.name for residue in prepared.topology.residues()]
    if joined.getNumResidues() == 1 and names[0] != "ACE":
        return found  # CHARMM36 has no template of an amino acid that is free before its cap
    found["CHARMM36, obc2"] = app.ForceField(*FIELDS["CHARMM36, obc2"]).createSystem(joined, removeCMMotion=False)
    return found | {"CHARMM36, vacuum": bare(found["CHARMM36, obc2"])}


def bare(system):
    """Without its solvent: the templates of CHARMM36 take seconds to match, too many to match them anew."""
    system = openmm.XmlSerializer.clone(system)
    (solvent,) = (i for i, f in enumerate(system.getForces()) if isinstance(f, openmm.CustomGBForce))
    system.removeForce(solvent)
    return system


@pytest.mark.long
def test_table():
    count = int(os.environ.get("PARITY_FRAMES", "20"))
    others = int(os.environ.get("PARITY_OTHERS", str(count)))
    part = slice(*(int(end) for end in os.environ.get("PARITY_PEPTIDES", "0:40").split(":")))
    head = f"{'float64 dU':>12}{'dF':>9}{'float32 dU':>12}{'dF':>9}"
    print(f"\n{'peptide':<42}{'atoms':>6}  {'force field':<17}{'frames':>7}{'MD:':>5}{head}{'distorted:':>12}{head}")
    worst = {}
    for sequence in forty()[part]:
        prepared = built(sequence)
        for name, system in systems(prepared).items():
            one = replace(prepared, system=system)
            wanted = count if name == "amber14, obc1" else others
            x = frames(one, wanted, 4, 0.01)
            rng = torch.Generator().manual_seed(8)
            width = 0.01 + 0.01 * torch.rand(wanted, 1, 1, generator=rng, dtype=x.dtype)
            moved = x + width * torch.randn(x.shape, generator=rng, dtype=x.dtype)
            found = torch.tensor([[*errors(one, system, y)] for y in (x, moved)]).reshape(2, 4)
            print(f"{sequence:<42}{len(x[0]):>6}  {name:<17}{len(x):>7}{line(found)}", flush=True)
            worst[name] = torch.maximum(worst.get(name, found), found)
            assert (found[:, :2] < torch.tensor([1e-3, 1e-2])).all()
    for name, found in worst.items():
        print(f"{'largest':<50}{name:<17}{'':>7}{line(found)}")


def line(found):
    md, moved = ("".join(f"{v:>{w}.1e}" for v, w in zip(row, (12, 9, 12, 9), strict=True)) for row in found.tolist())
    return f"{'':>5}{md}{'':>12}{moved}"


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
    "gbn": ([AMBER, "implicit/gbn.xml"], {}),
    "gbn, salt, cutoff": ([AMBER, "implicit/gbn.xml"], {"implicitSolventKappa": 1.5, "cutoff": 0.6}),
    "gbn2": ([AMBER, "implicit/gbn2.xml"], {}),
    "gbn2, cutoff, no surface": ([AMBER, "implicit/gbn2.xml"], {"sasaMethod": None, "cutoff": 0.6}),
    "gbn2, salt": ([AMBER, "implicit/gbn2.xml"], {"implicitSolventKappa": 1.5}),
    "ff19SB": ([FF19SB], {}),
    "ff19SB, gbn2": ([FF19SB, "implicit/gbn2.xml"], {}),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(setting):
    files, options = SETTINGS[setting]
    prepared = built("CFD")
    system = system_of("CFD", *files, **options)
    x = distorted(prepared.positions, 0.005, 3)
    if "cutoff" in options:
        far = torch.cdist(x, x) > options["cutoff"]
        assert 0.2 < far.float().mean() < 0.8  # both sides of the cutoff are seen
    double, single = errors(prepared, system, x)
    assert double[0] < 1e-5
    assert double[1] < 1e-5
    assert single[0] < 1e-2


def cut(system, reach):
    """With both of CHARMM's forces between all pairs ended at `reach` nm."""
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce | openmm.CustomNonbondedForce):
            force.setNonbondedMethod(type(force).CutoffNonPeriodic)
            force.setCutoffDistance(reach)
    return system


@pytest.fixture(scope="module")
def charmm():
    return system_of("CFD", CHARMM, "implicit/obc2.xml")


@pytest.mark.parametrize("change", [lambda s: s, bare, lambda s: cut(bare(s), 0.6)], ids=["obc2", "vacuum", "cutoff"])
def test_charmm(charmm, change):
    prepared = built("CFD")
    system = change(charmm)
    kinds = {type(force).__name__ for force in system.getForces()}
    assert {"CustomNonbondedForce", "CustomBondForce", "CustomTorsionForce", "CMAPTorsionForce"} <= kinds
    double, single = errors(prepared, system, distorted(prepared.positions, 0.005, 3))
    assert max(double) < 1e-5
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
