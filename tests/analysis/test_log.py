"""The log is read as far as it is whole, and the running acceptance is what it says."""

import numpy as np
import pytest

from timewarp.analysis.log import read_log

HEADER = "chain,step,potential_kj_per_mol,accepted\n"


def read(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    return read_log(tmp_path / "log.csv")


def test_chains_come_apart_and_acceptance_is_a_running_mean(tmp_path):
    first, second = read(tmp_path, HEADER + "1,1,-5.5,1\n0,1,-3,True\n0,2,-4,0\n1,2,-6,0\n0,3,-5,1\n0,4,-5,0\n")
    assert (first.chain, second.chain) == (0, 1)
    assert second.potential.tolist() == [-5.5, -6]
    np.testing.assert_allclose(first.acceptance(), [1, 1 / 2, 2 / 3, 1 / 2])


def test_counts_between_saved_frames_are_divided_by_steps(tmp_path):
    (chain,) = read(tmp_path, HEADER + "0,10,-5,3\n0,20,-5,1\n")
    assert chain.acceptance().tolist() == [0.3, 0.2]


def test_runs_without_moves_know_no_acceptance(tmp_path):
    (chain,) = read(tmp_path, HEADER + "0,10,-5,\n0,20,-5,\n")
    assert np.isnan(chain.acceptance()).all()


@pytest.mark.parametrize("end", ["0", "0,2", "0,2,-", "0,2,", "x,2,-3,1"])
def test_a_line_that_was_cut_short_is_left_out(tmp_path, end):
    (chain,) = read(tmp_path, HEADER + "0,1,-5,1\n" + end)
    assert chain.steps.tolist() == [1]


def test_another_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the columns"):
        read(tmp_path, "a,b\n1,2\n")
    assert read(tmp_path, HEADER) == []


def test_of_every_few_lines_the_first_is_kept_with_the_mean_of_what_was_accepted(tmp_path):
    rows = [(chain, step, -step, int(step % 3 == chain)) for step in range(1, 12) for chain in (0, 1)]
    text = HEADER + "".join(f"{','.join(map(str, row))}\n" for row in rows)
    read(tmp_path, text)
    thin = read_log(tmp_path / "log.csv", 4)
    for chain, log in enumerate(thin):
        whole = np.array([row[1:] for row in rows if row[0] == chain], dtype=float)
        assert log.steps.tolist() == [1, 5, 9]
        assert log.potential.tolist() == [-1, -5, -9]
        np.testing.assert_allclose(log.accepted, [whole[i : i + 4, 2].mean() for i in (0, 4, 8)])
        assert 0 < log.acceptance()[-1] < 1
