"""A report in a few lines."""

import pytest

from timewarp.summary import summary


@pytest.mark.parametrize(
    ("accepted", "proposed", "said"),
    [(10, 10, "(100 %)"), (1, 4, "(25 %)"), (1247, 1500, "(83.1 %)"), (3, 40_000, "(0.0075 %)"), (0, 7, "(0 %)")],
)
def test_the_share_of_accepted_moves_is_a_plain_number(accepted, proposed, said):
    report = {"exact": True, "chains": 2, "moves_accepted": accepted, "moves_proposed": proposed, "seconds": 9.6}
    (line,) = summary(report | {"acceptance": accepted / proposed})
    assert line == f"exact: 2 chains, {accepted} of {proposed} moves accepted {said} in 10 s"
