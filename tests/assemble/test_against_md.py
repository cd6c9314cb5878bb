"""`timewarp sample` against dynamics: run with `pytest -m long -s tests/assemble/test_against_md.py`.

There are three references, none of which knows the flow: `MD`, Langevin dynamics of many replicas, and `tempering`,
from which it starts (both are told of in tests/against.py); and `OpenMM`, `timewarp md` from the prepared structure,
4 fs with rigid bonds to hydrogens. The angles of the last are judged where its chains agree with one another (R-hat),
and shown where they do not.

Each test leaves NAME.png and NAME.json beside its runs, in TIMEWARP_AGAINST if that is set; runs that are there already
are compared as they are. TIMEWARP_AGAINST_SCALE multiplies all lengths.
"""

import json
import os
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from against import SCALE, Side, T, equilibrium, rows

from assemble.portrait import portrait
from timewarp import assemble
from timewarp.analysis import Ensemble
from timewarp.resources import peptide_path
from timewarp.settings import MDSettings, SampleSettings
from timewarp.units import kT

PROPOSALS, CHAINS = round(2000 * SCALE), 10  # tested by each chain of the flow
OPENMM_CHAINS, OPENMM_STEPS = 4, round(25_000 * SCALE)
MIXED = 1.05  # R-hat


def _command(kind, pdb, out):
    """What a command of the package left; what its chains remember of where they began is left out."""
    if not (out / "report.json").exists():
        common = {"pdb": pdb, "out": out, "resume": True}
        settings = (
            MDSettings(steps=OPENMM_STEPS, interval=0.5, chains=OPENMM_CHAINS, **common)
            if kind == "md"
            else SampleSettings(steps=PROPOSALS, chains=CHAINS, **common)
        )
        getattr(assemble, kind)(settings, lambda *_: None, lambda: False)
    ensemble = Ensemble.load(out / "topology.pdb", sorted(out.glob("chain-*.dcd")))
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    energy = log["potential_kj_per_mol"].reshape(ensemble.frames, ensemble.chains).T
    report = json.loads((out / "report.json").read_text())
    facts = {name: report[name] for name in ("acceptance", "seconds") if report.get(name) is not None}
    side, keep = Side.of(ensemble, energy), slice(ensemble.frames // 10, None)
    return Side({name: x[:, keep] for name, x in side.angles.items()}, energy[:, keep], facts)


@pytest.mark.long
@pytest.mark.parametrize("name", ["AA", "HL", "ACE-ALA-NME"])
def test_dihedrals_and_energies_agree_with_dynamics(name, tmp_path, capsys):
    folder = Path(os.environ.get("TIMEWARP_AGAINST", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    pdb = peptide_path(name)
    flow = _command("sample", pdb, folder / f"sample-{name}")
    md, tempering = equilibrium(pdb, folder / f"equilibrium-{name}.npz")
    openmm = _command("md", pdb, folder / f"md-{name}")
    # each rigid bond to a hydrogen lacks the half kT that a harmonic bond holds
    hydrogens = sum(atom.element.symbol == "H" for atom in mdtraj.load(pdb).topology.atoms)
    found = {
        "MD": rows(md, flow),
        "tempering": rows(tempering, flow),
        "OpenMM": rows(openmm, flow, hydrogens * kT(T) / 2),
    }
    judged = {
        (side, key): row
        for side, each in found.items()
        for key, row in each.items()
        if side != "OpenMM" or key == "energy" or openmm.mixed(key) < MIXED
    }
    portrait(folder / f"{name}.png", name, md, flow, kT(T))
    (folder / f"{name}.json").write_text(json.dumps({"flow": flow.facts, "tempering": tempering.facts, **found}))
    with capsys.disabled():
        print(f"\n{name}: flow {flow.facts}; tempering {tempering.facts}")
        print(f"  MD {md.energy.size} frames of {len(md.energy)} replicas, OpenMM {openmm.energy.size} frames")
        print(f"  {'against':10} {'observable':10} {'ESS':>6} {'flow':>6} {'K-S D':>7} {'p':>7} {'overlap':>8}")
        for side, each in found.items():
            for key, row in each.items():
                note = "" if (side, key) in judged else f"  not mixed: R-hat {openmm.mixed(key):.2f}"
                if key == "energy":
                    (a, b), (c, d) = row["means"], row["errors"]
                    note = f"  {a:.2f} +- {c:.2f} and {b:.2f} +- {d:.2f} kJ/mol, {row['sigma']} sigma"
                    note += f"; standard deviations {row['deviations'][0]:.2f} and {row['deviations'][1]:.2f}"
                figures = f"{row['D']:7.3f} {row['p']:7.3f} {row['overlap']:8.3f}"
                print(f"  {side:10} {key:10} {row['ess'][0]:6} {row['ess'][1]:6} {figures}{note}")
    assert tempering.facts["agree"]
    assert min(row["p"] for row in judged.values()) > 0.01 / len(judged)
    assert max(abs(each["energy"]["sigma"]) for each in found.values()) < 4
