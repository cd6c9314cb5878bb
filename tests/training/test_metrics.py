"""The table of a run: it grows by rows, and forgets those of a run that died."""

from timewarp.training.metrics import Metrics


def test_rows_come_back_and_those_after_the_step_are_cut(tmp_path):
    path = tmp_path / "metrics.csv"
    first = Metrics(path, ["step", "loss"])
    assert first.rows() == []
    first.cut(0)
    for step in (5, 10, 15):
        first.add({"step": step, "loss": step / 10, "other": "left out"})
    second = Metrics(path, ["step", "norm", "loss"])
    second.cut(10)
    second.add({"step": 12, "norm": 3})
    assert path.read_text().splitlines() == ["step,norm,loss", "5,,0.5", "10,,1.0", "12,3,"]
    assert second.rows()[0] == {"step": "5", "norm": "", "loss": "0.5"}
