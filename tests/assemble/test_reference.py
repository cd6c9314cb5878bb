"""The reference sampler: reproducible, in time, and in agreement with long MD (`pytest -m long -s`)."""

import os

import mdtraj
import numpy as np
import pytest
import torch

from timewarp import assemble, units
from timewarp.analysis import Ensemble, kolmogorov_smirnov, overlap
from timewarp.assemble import peptide as building
from timewarp.assemble import reference
from timewarp.assemble.data import loader
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.reference import reference_ensemble
from timewarp.energy import Potential
from timewarp.mcmc import bulk_ess
from timewarp.md.system import prepare_sequence, write_pdb
from timewarp.settings import MDSettings

MD_SECONDS = float(os.environ.get("TIMEWARP_MD_SECONDS", "900"))
KELVIN = 330.0


@pytest.fixture(scope="module")
def glycines():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}.items():
            patch.setattr(building, name, value)
        return Peptide.of(loader("GG")(), KELVIN)


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    if not request.node.get_closest_marker("long"):
        for name in ("WARM_UP", "PILOT", "BETWEEN", "LEAPS"):
            monkeypatch.setattr(reference, name, 2)


def test_frames_are_of_the_peptide_at_its_temperature(glycines):
    lines = []
    found = reference_ensemble(glycines, 20, seed=1, seconds=1e-3, ladders=8, told=lines.append)
    assert found.positions.shape[1:] == (17, 3)
    assert len(found.positions) == len(found.torsions) == len(found.energy) == 8  # time was over after one round
    assert len(lines) == 1
    assert not found.agree
    energy = Potential(glycines.molecule, KELVIN)(found.positions)
    assert (energy - found.energy).abs().max() < 1e-2
    torsions = glycines.chart.forward(found.positions)[0]
    assert (torch.remainder(torsions - found.torsions + torch.pi, 2 * torch.pi) - torch.pi).abs().max() < 1e-3


def test_it_runs_longer_until_it_agrees(glycines, monkeypatch):
    """Each time is twice as long as the one before, and only its frames count."""
    asked = []

    def judged(torsions, energy, start):
        asked.append((tuple(torsions.shape), start))
        return {"agree": len(asked) == 3, "halves": 0.1, "starts": None, "rhat": None, "ess": None}

    monkeypatch.setattr(reference, "mixing", judged)
    lines = []
    found = reference_ensemble(glycines, 4, seed=1, ladders=4, told=lines.append)
    assert asked == [((4, 1, glycines.chart.torsions), [0, 0, 1, 1])] * 3
    assert found.facts["rounds"] == 8
    assert [line.split(": ")[-1] for line in lines] == ["not yet in agreement"] * 2 + ["they agree"]
    monkeypatch.setattr(reference, "mixing", lambda *_: {"agree": True, "halves": 0, "starts": 0, "rhat": 1, "ess": 9})
    one, two = (reference_ensemble(glycines, 7, seed=s, ladders=4) for s in (1, 2))
    again = reference_ensemble(glycines, 7, seed=1, ladders=4)
    assert torch.equal(one.positions, again.positions)
    assert not torch.equal(one.positions, two.positions)
    assert one.positions.shape == (8, 17, 3)


def _unrolled(a, b):
    """Angles cut where neither sample has much, so that a distribution on the circle is one on a line."""
    counts, edges = np.histogram(np.concatenate([a.ravel(), b.ravel()]), bins=36, range=(-np.pi, np.pi))
    cut = edges[int(np.argmin(counts))]
    return tuple((x - cut) % (2 * np.pi) for x in (a, b))


@pytest.mark.long
@pytest.mark.parametrize("name", ["AA"])
def test_parallel_tempering_agrees_with_long_md(name, tmp_path, capsys):
    """Energies and dihedrals against OpenMM MD of TIMEWARP_MD_SECONDS (900 if unset), K-S by effective sample size."""
    prepared = prepare_sequence(name)
    pdb = tmp_path / f"{name}.pdb"
    write_pdb(prepared.topology, prepared.positions, pdb)
    run = MDSettings(pdb=pdb, out=tmp_path / "md", seconds=MD_SECONDS, interval=0.5, chains=1)
    assemble.md(run, lambda *_: None, lambda: False)
    md = Ensemble.load(run.out / "topology.pdb", sorted(run.out.glob("chain-*.dcd")))
    log = np.genfromtxt(run.out / "log.csv", delimiter=",", names=True)
    keep = slice(md.frames // 10, None)
    md_energy = log["potential_kj_per_mol"].reshape(1, -1)[:, keep]

    found = reference_ensemble(Peptide.of(loader(name)()), 6400)
    frames = found.positions.unflatten(0, (-1, found.ladders)).transpose(0, 1)
    topology = mdtraj.load_pdb(str(run.out / "topology.pdb"), standard_names=False).topology
    tempered = Ensemble.of(topology, frames.numpy())
    energy = found.energy.view(-1, found.ladders).T.numpy() * units.kT(310.0)
    with capsys.disabled():
        print(f"\n{name}: {reference.describe(found)}")
        print("observable, ESS of MD, ESS of tempering, K-S D, p, overlap")
        smallest, count = 1.0, 0
        for key in (n for n in md.names if "omega" not in n):
            a, b = _unrolled(md.angle(key)[:, keep], tempered.angle(key))
            ess = [max(2.0, min(bulk_ess(np.cos(x)), bulk_ess(np.sin(x)))) for x in (a, b)]
            test = kolmogorov_smirnov(a.ravel(), b.ravel(), *ess)
            smallest, count = min(smallest, test.pvalue), count + 1
            shared = overlap(a.ravel(), b.ravel())
            print(f"  {key:8} {ess[0]:8.0f} {ess[1]:8.0f} {test.statistic:8.3f} {test.pvalue:8.3f} {shared:8.3f}")
        # each rigid bond of the MD to a hydrogen lacks the half kT that a harmonic bond holds
        hydrogens = int((loader(name)().elements == 1).sum())
        shifted = md_energy + hydrogens * units.kT(310.0) / 2
        error = np.hypot(*(x.std() / np.sqrt(bulk_ess(x)) for x in (shifted, energy)))
        print(f"  energy: MD {shifted.mean():.2f}, tempering {energy.mean():.2f} +- {error:.2f} kJ/mol")
    assert found.agree
    assert abs(shifted.mean() - energy.mean()) < 4 * error
    assert smallest > 0.01 / count
