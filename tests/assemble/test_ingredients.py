"""Effective samples a second with and without each ingredient of `timewarp sample`: a table, for a quiet machine."""

import os
from importlib import import_module
from statistics import geometric_mean

import pytest

from timewarp import assemble
from timewarp.assemble.tally import FLOW, LOCAL, REGROWTH, TORSIONS, TURNING
from timewarp.mcmc import Cycle
from timewarp.md.system import prepare_sequence, write_pdb
from timewarp.settings import SampleSettings

PEPTIDES = os.environ.get("INGREDIENTS_PEPTIDES", "AA HL CE DG FK NA PY RT SS VF").split()
SECONDS = float(os.environ.get("INGREDIENTS_SECONDS", "30"))
VARIANTS = {
    "everything": {},
    "one draw of bonds and angles": {"particles": 1},
    "annealing of 4 steps in its place": {"anneal": 4, "particles": 1},
    "no regrowth": {"without": (REGROWTH,), "warm_up": 0},
    "no single torsions drawn anew": {"without": (TURNING,), "warm_up": 0},
    "no local moves": {"without": (TURNING, TORSIONS, LOCAL), "warm_up": 0},
    "local moves alone": {"without": (FLOW, REGROWTH, TURNING), "warm_up": 0},
    "no warm-up, weights by rule": {"warm_up": 0},
    "narrow (width 10)": {"width": 10},
    "OpenMM has the last word": {"verify": True},
}
rows: dict[str, list[tuple[float, float]]] = {}


def lacking(kernel_of, names):
    """What makes a run's kernel, without those of these names."""

    def made(*how):
        whole, known = kernel_of(*how)
        kept = [k for k, name in enumerate(known) if name not in names]
        kernels, weights = (tuple(part[k] for k in kept) for part in (whole.kernels, whole.weights))
        return Cycle(kernels, weights), tuple(known[k] for k in kept)

    return made


@pytest.mark.long
@pytest.mark.parametrize("sequence", PEPTIDES)
def test_effective_samples_a_second_with_and_without_each_ingredient(sequence, tmp_path, monkeypatch):
    """Prints a row a variant: least ESS over the seconds of sampling alone, its ratio to everything, acceptance."""
    prepared = prepare_sequence(sequence)
    write_pdb(prepared.topology, prepared.positions, tmp_path / "peptide.pdb")
    module = import_module("timewarp.assemble.sample")  # the package has a function of that name
    whole = None
    for name, changes in VARIANTS.items():
        out, names = tmp_path / name.replace(" ", "-"), changes.get("without", ())
        changed = {k: v for k, v in changes.items() if k != "without"}
        settings = SampleSettings(pdb=tmp_path / "peptide.pdb", out=out, seconds=SECONDS, **changed)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_kernel", lacking(module._kernel, names))
            report = assemble.sample(settings, lambda *_: None, lambda: False)
        assert set(report["by_kernel"]).isdisjoint(names)
        rate = report["ess"]["min"] / SECONDS
        whole = whole or rate
        rows.setdefault(name, []).append((rate, rate / whole))
        worst = max(report["rhat"].values())
        print(
            f"{sequence:6} {name:34} {rate:8.2f} ESS/s {rate / whole:6.2f} x  R-hat {worst:.3f} "
            f"{report['acceptance'] or 0:6.1%} {report['verdict']}",
            flush=True,
        )
        assert report["exact"]


@pytest.mark.long
def test_what_each_ingredient_does_on_the_whole():
    """Prints the geometric mean of the ratios, and in how many peptides a variant does worse."""
    for name, found in rows.items():
        ratios = [ratio for _, ratio in found]
        worse = sum(ratio < 1 for ratio in ratios)
        print(f"{name:34} {geometric_mean(ratios):6.2f} x, worse in {worse} of {len(ratios)}")
