"""Reference ensembles are made once, read back whole, and made again where the cache is no good."""

import numpy as np
import pytest

from timewarp.analysis.tica import Tica
from timewarp.assemble.yardstick import Yardstick, cache, kept


@pytest.fixture
def made(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setenv("TIMEWARP_CACHE", str(tmp_path / "cache"))
    tica = Tica(rng.normal(size=4), rng.normal(size=(4, 2)), np.array([0.9, 0.5]), 10)
    positions = rng.normal(size=(2, 5, 3, 3)).astype(np.float32)
    return Yardstick(positions, rng.normal(size=(2, 5)), tica, {"e_w2": 0.1}, {"method": "none"})


def test_the_second_time_it_comes_from_the_cache(made):
    calls = []
    for _ in range(2):
        found = kept({"temperature": 310.0}, "AA", lambda: calls.append(1) or made)
        assert np.array_equal(found.positions, made.positions)
        np.testing.assert_allclose(found.tica(np.ones(4)), made.tica(np.ones(4)))
        assert found.floors == made.floors
        assert found.facts == made.facts
    assert len(calls) == 1
    kept({"temperature": 400.0}, "AA", lambda: calls.append(1) or made)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * len(b)])
def test_a_damaged_file_is_made_again(made, damage):
    kept({}, "AA", lambda: made)
    (path,) = cache().glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    calls = []
    kept({}, "AA", lambda: calls.append(1) or made)
    assert calls == [1]
    assert np.array_equal(Yardstick.read(path).positions, made.positions)


def test_without_a_place_to_write_it_is_made_each_time(made, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("TIMEWARP_CACHE", str(tmp_path / "file" / "cache"))
    assert kept({}, "AA", lambda: made) is made


def test_the_cache_is_the_users_and_never_the_repository(monkeypatch, tmp_path):
    monkeypatch.delenv("TIMEWARP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() == tmp_path / "timewarp" / "reference"
