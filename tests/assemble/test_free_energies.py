"""Free-energy differences between phi/psi basins: `timewarp sample` against long parallel tempering, a table.

Run with `TIMEWARP_CACHE=DIR pytest -o addopts= -m long -s tests/assemble/test_free_energies.py` (without the checks of
shapes, under which nothing is compiled); references are kept in DIR. The
peptides are public test peptides, on which nothing is tuned. In the environment, with what it is if absent:
FREE_ENERGIES_PEPTIDES; FREE_ENERGIES_SECONDS (120) of sampling each; FREE_ENERGIES_STEPS in place of it;
FREE_ENERGIES_FRAMES (9600) of each half of a reference, doubled until its parts agree or
FREE_ENERGIES_REFERENCE_SECONDS (900) are over.
"""

import os
import time

import mdtraj
import numpy as np
import pytest

from timewarp import assemble
from timewarp.analysis import Ensemble
from timewarp.analysis.basins import states
from timewarp.assemble.yardsticks import Recipe, yardstick
from timewarp.md.system import prepare_sequence, write_pdb
from timewarp.settings import SampleSettings
from timewarp.units import kT

PEPTIDES = "AA CE DG FK HL NA PY RT SS VF AAEW AYTG GGRS SAEL VTST"
CALORIE = 4.184  # J
WITHIN = 0.1  # kcal/mol
LEAST = 0.01  # share of the reference below which a basin is not listed
SIGMAS = 4.0  # of the largest of some hundred differences


def asked(name: str, default: str) -> str:
    return os.environ.get(f"FREE_ENERGIES_{name}", default)


def differences(words: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """F(name) - F(names[0]) in kcal/mol at 310 K, and its standard error by leaving out each chain in turn.

    Args:
        words: basin of every frame, [chains, frames].
        names: basins, the one that all are compared with first.
    """
    counts = np.stack([(words == name).sum(1) for name in names]).astype(float)

    def free(c):
        with np.errstate(divide="ignore", invalid="ignore"):
            return -kT(310.0) / CALORIE * np.log(c / c[0])

    chains = len(words)
    without = np.stack([free(counts.sum(1) - counts[:, k]) for k in range(chains)])
    spread = without - without.mean(0)
    return free(counts.sum(1)), np.sqrt((chains - 1) / chains * (spread**2).sum(0))


def reference(prepared) -> tuple[np.ndarray, dict]:
    """Basins of the frames of parallel tempering, one row a ladder, and how it was made."""
    frames = int(asked("FRAMES", "9600"))
    recipe = Recipe(frames=frames, seconds=float(asked("REFERENCE_SECONDS", "900")), starts=8)
    made = yardstick(prepared, 310.0, recipe, lambda *_: None, lambda: False)
    each = min(64, max(8, frames // 100 * 2)) // 2  # ladders of a half
    length = len(made.positions[0]) // each
    halves = [half[: each * length].reshape(length, each, *half.shape[1:]).swapaxes(0, 1) for half in made.positions]
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    return states(Ensemble.of(topology, np.concatenate(halves))), dict(made.facts)


def sampled(prepared, folder) -> tuple[np.ndarray, dict]:
    """Basins of the frames of `timewarp sample`, one row a chain, and its report."""
    write_pdb(prepared.topology, prepared.positions, folder / "peptide.pdb")
    steps = asked("STEPS", "")
    limit = {"steps": int(steps)} if steps else {"seconds": float(asked("SECONDS", "120"))}
    settings = SampleSettings(pdb=folder / "peptide.pdb", out=folder / "run", **limit)
    report = assemble.sample(settings, lambda *_: None, lambda: False)
    return states(Ensemble.load(folder / "run/topology.pdb", sorted((folder / "run").glob("chain-*.dcd")))), report


def compared(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[str, float, float, float, float, float]]:
    """(basin, share, ours, its error, theirs, its error) for each basin of the reference, the most populated first."""
    names, counts = np.unique(theirs, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    share = counts[order] / theirs.size
    listed = [str(name) for name, s in zip(names[order], share, strict=True) if s >= LEAST]
    table = zip(*differences(ours, listed), *differences(theirs, listed), strict=True)
    return [(name, s, *row) for name, s, row in zip(listed, share, table, strict=False)]


@pytest.mark.long
@pytest.mark.parametrize("sequence", asked("PEPTIDES", PEPTIDES).split())
def test_free_energies_are_those_of_long_parallel_tempering(sequence, tmp_path, capsys):
    """Prints a row a basin, how many are within 0.1 kcal/mol or the error, and what the peptide took."""
    prepared, began = prepare_sequence(sequence), time.process_time()
    theirs, facts = reference(prepared)
    middle = time.process_time()
    ours, report = sampled(prepared, tmp_path)
    ended, rows = time.process_time(), compared(ours, theirs)[1:]
    good = 0
    with capsys.disabled():
        print(f"\n{sequence}: basin, share, sample - tempering (kcal/mol), error of both")
        for name, share, f, e, g, d in rows:
            error = float(np.hypot(e, d))
            good += abs(f - g) <= max(WITHIN, error)
            print(f"  {name:8} {share:6.1%}  {f:6.3f} - {g:6.3f} = {f - g:+.3f} +- {error:.3f}")
        print(
            f"  {good} of {len(rows)} within {WITHIN} kcal/mol or one standard error; reference {middle - began:.0f} s "
            f"of computing (agrees: {facts.get('agree')}), sample {ended - middle:.0f} s ({report['verdict']})"
        )
    assert all(abs(f - g) <= max(WITHIN, SIGMAS * np.hypot(e, d)) for _, _, f, e, g, d in rows)


def test_a_difference_and_its_error():
    """Chains of independent frames: the error is that of ln of a ratio of shares."""
    rng, shares = np.random.default_rng(0), np.array([0.6, 0.3, 0.1])
    found = [differences(rng.choice(list("abc"), (20, 500), p=shares), list("abc")) for _ in range(200)]
    values, errors = (np.stack(part) for part in zip(*found, strict=True))
    exact = -kT(310.0) / CALORIE * np.log(shares / shares[0])
    assert np.abs(values.mean(0) - exact).max() < 4 * values.std(0).max() / np.sqrt(200)
    assert np.allclose(errors[:, 1:].mean(0), values[:, 1:].std(0), rtol=0.2)
    assert not values[:, 0].any()


def test_another_law_is_seen():
    rng = np.random.default_rng(0)
    theirs = rng.choice(list("abc"), (64, 300), p=[0.6, 0.3, 0.1])
    ours = rng.choice(list("abc"), (10, 2000), p=[0.6, 0.2, 0.2])
    off = [abs(f - g) / np.hypot(e, d) for _, _, f, e, g, d in compared(ours, theirs)[1:]]
    assert min(off) > SIGMAS
