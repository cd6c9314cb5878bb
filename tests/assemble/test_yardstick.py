"""Reference ensembles are made once, read back whole, and made again where the cache is no good."""

import os

import mdtraj
import numpy as np
import pytest
import torch

from timewarp.analysis.tica import Tica
from timewarp.assemble.scores import distances
from timewarp.assemble.yardstick import Yardstick, cache, kept
from timewarp.assemble.yardsticks import Recipe, Stopped, yardstick
from timewarp.md.energy import OpenMMEnergy
from timewarp.md.system import prepare_sequence


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


def test_openmm_can_be_the_reference_and_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMEWARP_CACHE", str(tmp_path))
    prepared, recipe = prepare_sequence("GG"), Recipe(frames=20, nanoseconds=0.0004)

    def asked():
        return any(tmp_path.glob("md-*/run/topology.pdb"))

    with pytest.raises(Stopped):
        yardstick(prepared, 310.0, recipe, lambda *_: None, asked)
    found = yardstick(prepared, 310.0, recipe, lambda *_: None, lambda: False)
    assert found.positions.shape == (2, 20, 17, 3)
    assert found.facts["method"] == "MD"
    expected = OpenMMEnergy(prepared.system, 310.0, "Reference")(torch.as_tensor(found.positions[1, :3]).double())
    np.testing.assert_allclose(found.energy[1, :3], expected.numpy(), atol=0.01)


@pytest.mark.long
@pytest.mark.parametrize("name", ["AA", "ACE-ALA-NME"])
def test_tempering_agrees_with_openmm(name, capsys):
    """Run with `pytest -m long -s`; TIMEWARP_REFERENCE_NS (2 if unset) of MD, which is kept in the cache."""
    nanoseconds = float(os.environ.get("TIMEWARP_REFERENCE_NS", "2"))
    prepared = prepare_sequence(name)
    exact, md = (
        yardstick(prepared, 310.0, Recipe(2000, n), lambda *_: None, lambda: False) for n in (0.0, nanoseconds)
    )
    topology = mdtraj.Topology.from_openmm(prepared.topology)
    between = distances(topology, exact.tica, *((y.positions[0], y.energy[0]) for y in (exact, md)))
    with capsys.disabled():
        print(f"\n{name}: tempering against {nanoseconds:g} ns of MD {between}")
        print(f"  halves of tempering {dict(exact.floors)}\n  halves of MD {dict(md.floors)}")
    for key in ("e_w2", "t_w2"):
        assert between[key] < 2 * max(exact.floors[key], md.floors[key])


def test_the_cache_is_the_users_and_never_the_repository(monkeypatch, tmp_path):
    monkeypatch.delenv("TIMEWARP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() == tmp_path / "timewarp" / "reference"
