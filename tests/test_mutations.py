"""`timewarp sample` with hundreds of files damaged at random: each ends in samples, or in status 2 and one line.

Run with `pytest -m long -s tests/test_mutations.py`; `tests/md/test_faults.py` has two thousand more, that are read but
not sampled.
"""

import json
import shutil
import time
from collections import Counter

import pytest
from md.damage import CHANGES, damaged
from md.test_faults import SOURCES, sources

from timewarp.cli import execute

__all__ = ["sources"]  # a fixture
EACH = 300  # files of each kind
SHORT = ["--steps", "2", "--chains", "1", "--width", "2", "--warm-up", "0", "--device", "cpu"]


def ended(path, out, capsys) -> tuple[str, float]:
    """How the command ended, `sampled` or `refused`, and the seconds of computing; anything else is an error."""
    start = time.process_time()
    status = execute(["sample", str(path), "--out", str(out), *SHORT])
    took, said = time.process_time() - start, capsys.readouterr().err
    assert "Traceback" not in said
    if status == 2:
        assert len(said.strip().splitlines()) == 1, said
        assert said.startswith(f"timewarp: {path}: expected ")
        assert ", found" in said
        assert not out.exists()
        return "refused", took
    assert status == 0, said
    assert json.loads((out / "report.json").read_text())["steps"] == 2
    shutil.rmtree(out)
    return "sampled", took


def outcomes(sources, kind, seeds, folder, capsys) -> tuple[Counter, float]:
    """How often the files of these seeds ended so, and the longest time."""
    path, found, most = folder / f"x.{kind}", Counter(), 0.0
    for seed in seeds:
        path.write_bytes(damaged(sources[kind][seed % len(SOURCES)], kind, seed))
        try:
            word, took = ended(path, folder / "out", capsys)
        except BaseException as error:
            raise AssertionError(f"{kind} {seed}: {error}") from error
        found[word] += 1
        most = max(most, took)
    return found, most


@pytest.mark.parametrize("kind", CHANGES)
def test_a_few_damaged_files_are_sampled_or_refused(sources, tmp_path, capsys, few_conformers, kind):
    found, most = outcomes(sources, kind, range(5000, 5006), tmp_path, capsys)
    assert found.total() == 6
    assert most < 30


@pytest.mark.long
@pytest.mark.parametrize("kind", CHANGES)
def test_hundreds_of_damaged_files_are_sampled_or_refused(sources, tmp_path, capsys, few_conformers, kind):
    """Prints how many ended in samples, how many in one line, and the longest time of one."""
    found, most = outcomes(sources, kind, range(3000, 3000 + EACH), tmp_path, capsys)
    with capsys.disabled():
        print(f"\n{kind}: {EACH} damaged files, {dict(found)}, the longest {most:.1f} s of computing")
    assert found.total() == EACH
    assert min(found["sampled"], found["refused"]) >= 20
    assert most < 30
