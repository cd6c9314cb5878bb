"""`timewarp sample` against long OpenMM MD: run with `pytest -m long -s tests/assemble/test_against_md.py`.

The seconds given to each MD run are TIMEWARP_MD_SECONDS (900 if unset), and an existing pair of run directories
TIMEWARP_AGAINST/md-NAME, TIMEWARP_AGAINST/sample-NAME is compared as it is.
"""

import os
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from timewarp import assemble
from timewarp.analysis import Ensemble, kolmogorov_smirnov, overlap
from timewarp.mcmc import bulk_ess
from timewarp.resources import peptide_path
from timewarp.settings import MDSettings, SampleSettings
from timewarp.units import kT

MD_SECONDS = float(os.environ.get("TIMEWARP_MD_SECONDS", "900"))


def _run(kind, pdb, out):
    if not (out / "report.json").exists():
        common = {"pdb": pdb, "out": out, "resume": True}
        settings = (
            MDSettings(seconds=MD_SECONDS, interval=0.5, chains=1, **common)
            if kind == "md"
            else SampleSettings(seconds=120.0, chains=10, **common)
        )
        getattr(assemble, kind)(settings, lambda *_: None, lambda: False)
    ensemble = Ensemble.load(out / "topology.pdb", sorted(out.glob("chain-*.dcd")))
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    energy = log["potential_kj_per_mol"].reshape(ensemble.frames, ensemble.chains).T
    # what the runs still remember of where they began is left out
    keep = slice(ensemble.frames // 10, None)
    series = {name: ensemble.angle(name)[:, keep] for name in ensemble.names if "omega" not in name}
    return series, energy[:, keep]


def _unrolled(md, flow):
    """Angles cut where neither sample has much, so that a distribution on the circle is one on a line."""
    both = np.concatenate([md.ravel(), flow.ravel()])
    counts, edges = np.histogram(both, bins=36, range=(-np.pi, np.pi))
    cut = edges[int(np.argmin(counts))]
    return tuple((x - cut) % (2 * np.pi) for x in (md, flow))


@pytest.mark.long
@pytest.mark.parametrize("name", ["AA", "HL", "ACE-ALA-NME"])
def test_dihedrals_agree_with_md(name, tmp_path, capsys):
    folder = Path(os.environ.get("TIMEWARP_AGAINST", tmp_path))
    md, md_energy = _run("md", peptide_path(name), folder / f"md-{name}")
    flow, energy = _run("sample", peptide_path(name), folder / f"sample-{name}")
    smallest = 1.0
    with capsys.disabled():
        print(f"\n{name}: observable, ESS of MD, ESS of the flow, K-S D, p, overlap")
        for key in md:
            a, b = _unrolled(md[key], flow[key])
            ess = [max(2.0, min(bulk_ess(np.cos(x)), bulk_ess(np.sin(x)))) for x in (md[key], flow[key])]
            test = kolmogorov_smirnov(a.ravel(), b.ravel(), *ess)
            smallest = min(smallest, test.pvalue)
            shared = overlap(a.ravel(), b.ravel())
            print(f"  {key:8} {ess[0]:8.0f} {ess[1]:8.0f} {test.statistic:8.3f} {test.pvalue:8.3f} {shared:8.3f}")
        # each rigid bond of the MD to a hydrogen lacks the half kT that a harmonic bond holds
        hydrogens = sum(atom.element.symbol == "H" for atom in mdtraj.load(peptide_path(name)).topology.atoms)
        shifted = md_energy + hydrogens * kT(310.0) / 2
        error = np.hypot(*(x.std() / np.sqrt(bulk_ess(x)) for x in (shifted, energy)))
        print(
            f"  energy: MD {md_energy.mean():.2f} + {hydrogens} kT/2 = {shifted.mean():.2f}, flow {energy.mean():.2f} "
            f"+- {error:.2f} kJ/mol; standard deviations {shifted.std():.2f} and {energy.std():.2f}"
        )
    assert abs(shifted.mean() - energy.mean()) < 4 * error
    assert smallest > 0.01 / len(md)
