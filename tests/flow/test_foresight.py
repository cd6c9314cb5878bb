"""The curves of what is to come, against beads that are written out one by one."""

import pytest
import torch

from timewarp import units
from timewarp.flow.foresight import DEPTH, SETTINGS, SIZE, SOFTENED, Beads
from timewarp.flow.growth import ANGLES, Growth
from timewarp.flow.pair_curves import TEMPER
from timewarp.flow.pair_tables import born_radii

from .molecules import chart_of, molecule_of
from .test_growth import KT, angles, grown


def beads_of(molecule, chart):
    return Beads.of(molecule, chart.tree.order, born_radii(molecule.forcefield.born, molecule.reference))


@pytest.mark.parametrize("sequence", ["AA", "RD", "ACE-SER-NME"])
def test_beads_are_the_heavy_atoms_with_all_of_the_charge(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    beads = beads_of(molecule, chart)
    assert len(beads.heavy) == int((molecule.elements > 1).sum())
    assert (molecule.elements[chart.tree.order][beads.heavy] > 1).all()
    assert beads.charge.sum().item() == pytest.approx(molecule.forcefield.charge.sum().item(), abs=1e-9)


def written_out(molecule, chart, growth, number, placed, angle):
    """The two values of a curve at an angle: each setting grown on the present, with the torsion at the angle."""
    beads, radii = beads_of(molecule, chart), born_radii(molecule.forcefield.born, molecule.reference)
    owner = owners(chart)
    born = molecule.forcefield.born
    share = 1 / born.solute_dielectric - 1 / born.solvent_dielectric
    moved = chart.below[1][chart.place_of_torsion[number]] > 0
    stand = [k for k, p in enumerate(beads.heavy.tolist()) if owner[p] < number]
    settings = []
    for setting in growth.settings:
        torsions = setting.clone()
        torsions[:number], torsions[number] = placed[:number], angle
        x = chart.inverse(torsions[None], torch.zeros(1, chart.stiffs, dtype=torch.float64))[0][0][chart.tree.order]
        clash = electric = 0.0
        for group in range(number + 1, chart.torsions):
            mine = [k for k, p in enumerate(beads.heavy.tolist()) if owner[p] == group and moved[p]]
            if not mine:
                continue
            at = x[beads.heavy[mine]].mean(0)
            width2 = (x[beads.heavy[mine]] - at).square().sum(-1).mean()
            for k in stand:
                r2 = (at - x[beads.heavy[k]]).square().sum() + SOFTENED**2
                s6 = ((SIZE**2 + SOFTENED**2 + width2) / r2) ** 3
                clash += 4 * DEPTH * len(mine) / KT * (s6 * s6 - s6)
                radius2 = radii[chart.tree.order][beads.heavy[mine]].mean() * beads.radius[k]
                smooth = (r2 + radius2 * torch.exp(-r2 / (4 * radius2))).sqrt()
                charge = units.COULOMB / KT * beads.charge[mine].sum() * beads.charge[k]
                electric += charge * (1 / r2.sqrt() - share / smooth)
        over = torch.as_tensor(clash) - TEMPER
        clash = TEMPER + TEMPER * torch.log1p(over / TEMPER) if over > 0 else clash
        settings.append(torch.stack([torch.as_tensor(clash + electric), torch.as_tensor(electric)]))
    return -torch.stack(settings).neg().exp().mean(0).log()


def owners(chart):
    number = {int(p): k for k, p in enumerate(chart.place_of_torsion)}
    found = []
    for place, refs in enumerate(chart.refs.tolist()):
        found.append(max([number.get(place, -1)] + [found[r] for r in refs if r >= 0]))
    return found


@pytest.mark.parametrize("sequence", ["RD", "ACE-SER-NME", "EK"])
def test_the_curves_are_those_of_each_setting_grown_on_what_stands(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    growth, torsions = Growth(molecule, chart, 310.0), angles(chart, 1, 3)[0]
    curves = growth.curves(torsions[None])[0, :, 2:]
    seen = 0
    for number in range(chart.torsions):
        if growth.foresights[number] is None:
            assert (curves[number] == 0).all()
            continue
        for index in (0, 11, 25):
            angle = -torch.pi + 2 * torch.pi / ANGLES * index
            expected = written_out(molecule, chart, growth, number, torsions, angle)
            torch.testing.assert_close(curves[number, :, index], expected, rtol=1e-6, atol=1e-7)
        seen += 1
    assert seen >= 1
    assert len(growth.settings) == SETTINGS


def test_the_last_torsion_of_every_branch_foresees_nothing():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    growth = Growth(molecule, chart, 310.0)
    last = max(p for p in range(chart.torsions))
    assert growth.foresights[last] is None
    assert any(sight is not None for sight in growth.foresights)


def test_an_end_that_bends_back_to_the_charge_of_the_other_is_foreseen():
    """phi of the last residue places a carbon, which arginine repels; the oxygens that follow it are drawn to it."""
    molecule, chart = molecule_of("RD"), chart_of("RD")
    growth = Growth(molecule, chart, 310.0)
    torsions = angles(chart, 400, 5)
    curves = growth.curves(torsions)
    placed = grown(growth, torsions)
    assert placed.isfinite().all()
    assert curves.isfinite().all()
    ends = [n for n, sight in enumerate(growth.foresights) if sight is not None]
    widest = (curves[:, ends, 3].amax(-1) - curves[:, ends, 3].amin(-1)).amax()
    assert widest > 2.0
