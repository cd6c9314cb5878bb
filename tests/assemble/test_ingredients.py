"""Effective samples a second with and without each ingredient of `timewarp sample`: a table, for a quiet machine."""

import os

import pytest

from timewarp import assemble
from timewarp.md.system import prepare_sequence, write_pdb
from timewarp.settings import SampleSettings

PEPTIDES = os.environ.get("INGREDIENTS_PEPTIDES", "AA HL CE DG FK NA PY RT SS VF").split()
SECONDS = float(os.environ.get("INGREDIENTS_SECONDS", "30"))
VARIANTS = {
    "everything": {},
    "one draw of bonds and angles": {"particles": 1},
    "sixteen draws": {"particles": 16},
    "annealing of 4 steps in their place": {"anneal": 4, "particles": 1},
    "annealing of 16 steps in their place": {"anneal": 16, "particles": 1},
    "no warm-up, weights by rule": {"warm_up": 0},
    "narrow (width 10)": {"width": 10},
    "wide (width 400)": {"width": 400},
}


@pytest.mark.long
@pytest.mark.parametrize("sequence", PEPTIDES)
def test_effective_samples_a_second_with_and_without_each_ingredient(sequence, tmp_path):
    """Prints a row a variant: least ESS over the seconds of sampling alone, its ratio to everything, acceptance."""
    prepared = prepare_sequence(sequence)
    write_pdb(prepared.topology, prepared.positions, tmp_path / "peptide.pdb")
    whole = None
    for name, changes in VARIANTS.items():
        out = tmp_path / name.replace(" ", "-")
        settings = SampleSettings(pdb=tmp_path / "peptide.pdb", out=out, seconds=SECONDS, **changes)
        report = assemble.sample(settings, lambda *_: None, lambda: False)
        rate = report["ess"]["min"] / SECONDS
        whole = whole or rate
        weights = {k: round(v, 2) for k, v in report["warm_up"]["weights"].items()}
        print(
            f"{sequence:6} {name:30} {rate:8.2f} ESS/s {rate / whole if whole else 0:6.2f} x  "
            f"{report['acceptance'] or 0:6.1%} {weights} {report['verdict']}"
        )
        assert report["exact"]
