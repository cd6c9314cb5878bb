"""`timewarp sample` against dynamics: run with `pytest -m long -s tests/assemble/test_against_md.py`.

Three references, none of which knows the flow, are told of in tests/against.py: parallel tempering, and from there
Langevin dynamics of many replicas on the batched potential (`MD`) and by OpenMM.

Each test leaves NAME.png and NAME.json beside its runs, in TIMEWARP_AGAINST if that is set; runs that are there already
are compared as they are. TIMEWARP_AGAINST_SCALE multiplies all lengths, and TIMEWARP_AGAINST_PEPTIDES names others,
files of the package or sequences.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from against import SCALE, Side, T, equilibrium, rows

from assemble.portrait import portrait
from timewarp import assemble
from timewarp.analysis import Ensemble
from timewarp.md.system import prepare_sequence, write_pdb
from timewarp.resources import peptide_path
from timewarp.settings import SampleSettings
from timewarp.units import kT

PEPTIDES = os.environ.get("TIMEWARP_AGAINST_PEPTIDES", "AA DG NA ACE-ALA-NME").split()
PROPOSALS, CHAINS = round(2000 * SCALE), 10  # tested by each chain of the flow


def sampled(pdb, out):
    """What `timewarp sample` left; what its chains remember of where they began is left out."""
    if not (out / "report.json").exists():
        settings = SampleSettings(pdb=pdb, out=out, steps=PROPOSALS, chains=CHAINS, resume=True)
        assemble.sample(settings, lambda *_: None, lambda: False)
    ensemble = Ensemble.load(out / "topology.pdb", sorted(out.glob("chain-*.dcd")))
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    energy = log["potential_kj_per_mol"].reshape(ensemble.frames, ensemble.chains).T
    report = json.loads((out / "report.json").read_text())
    facts = {name: report[name] for name in ("acceptance", "seconds")}
    side, keep = Side.of(ensemble, energy), slice(ensemble.frames // 10, None)
    return Side({name: x[:, keep] for name, x in side.angles.items()}, energy[:, keep], facts)


def file_of(name, folder):
    """The file of the package, or one of the sequence."""
    try:
        return peptide_path(name)
    except FileNotFoundError:
        prepared = prepare_sequence(name)
        write_pdb(prepared.topology, prepared.positions, folder / f"{name}.pdb")
        return folder / f"{name}.pdb"


@pytest.mark.long
@pytest.mark.parametrize("name", PEPTIDES)
def test_dihedrals_and_energies_agree_with_dynamics(name, tmp_path, capsys):
    folder = Path(os.environ.get("TIMEWARP_AGAINST", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    pdb = file_of(name, folder)
    flow = sampled(pdb, folder / f"sample-{name}")
    references = equilibrium(pdb, folder / f"equilibrium-{name}.npz")
    found = {kind: rows(side, flow) for kind, side in references.items()}
    facts = references["tempering"].facts
    portrait(folder / f"{name}.png", name, references["MD"], flow, kT(T))
    (folder / f"{name}.json").write_text(json.dumps({"flow": flow.facts, "mixing": facts, **found}))
    with capsys.disabled():
        print(f"\n{name}: the flow accepts {100 * flow.facts['acceptance']:.0f} %; tempering: {facts}")
        print(f"  {'against':10} {'observable':10} {'ESS':>6} {'flow':>6} {'K-S D':>7} {'p':>7} {'overlap':>8}")
        for kind, each in found.items():
            for key, row in each.items():
                figures = f"{row['D']:7.3f} {row['p']:7.3f} {row['overlap']:8.3f}"
                print(f"  {kind:10} {key:10} {row['ess'][0]:6} {row['ess'][1]:6} {figures}")
        for kind, each in found.items():
            row = each["energy"]
            (a, b), (c, d), (e, f) = (row[what] for what in ("means", "errors", "deviations"))
            both = f"{a:.2f} +- {c:.2f}, flow {b:.2f} +- {d:.2f} kJ/mol, {row['sigma']} sigma"
            print(f"  energy: {kind} {both}; standard deviations {e:.2f} and {f:.2f}")
    ps = [row["p"] for each in found.values() for row in each.values()]
    assert facts["agree"], "parallel tempering has not come to agree with itself: TIMEWARP_TEMPERING_SECONDS"
    assert min(ps) > 0.01 / len(ps)
    assert max(abs(each["energy"]["sigma"]) for each in found.values()) < 4
