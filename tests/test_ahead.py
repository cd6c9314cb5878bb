"""What is compiled ahead of time: made once, loaded from then on, made anew when it cannot be what is asked for."""

import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from timewarp import ahead as module
from timewarp.ahead import ahead


def law(a, b):
    return [(a * b).sum(-1), torch.exp(-a) @ b.T]


EXAMPLE = 2 * [torch.zeros(40, 7)]  # one tensor twice, and yet two arguments
FREE = [[0, 1], [0, 1]]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMEWARP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def made(monkeypatch):
    """A compiler that writes down what it was asked, and a loader that wants what it wrote."""
    asked = []

    def make(function, example, free, options, path):
        asked.append(path.name)
        path.write_bytes(b"good")

    def loaded(path):
        if path.read_bytes() != b"good":
            raise RuntimeError("spoiled")
        return lambda tensors: path.name

    monkeypatch.setattr(module, "_make", make)
    monkeypatch.setattr(module, "_loaded", loaded)
    monkeypatch.setattr(module, "compiler", lambda: "g++")
    return asked


def name_of(kind="law", options=None, sources=()):
    return ahead(law, EXAMPLE, FREE, options or {}, kind, list(sources))([])


def test_it_is_made_once(kept, made):
    first = name_of()
    assert name_of() == first
    assert made == [first]
    assert [p.name for p in kept.iterdir() if p.suffix == ".pt2"] == [first]
    assert not [p for p in kept.iterdir() if p.name.startswith(".making")]


def test_it_is_made_anew_for_anything_that_its_code_depends_on(kept, made, monkeypatch, tmp_path):
    source = ModuleType("source")
    source.__file__ = str(tmp_path / "source.py")
    (tmp_path / "source.py").write_text("one")
    name_of(sources=[source])
    (tmp_path / "source.py").write_text("two")
    name_of(sources=[source])
    name_of("law", {"max_fusion_size": 3}, [source])
    name_of("other", {}, [source])
    monkeypatch.setattr(module, "_processor", lambda: "another")
    name_of(sources=[source])
    monkeypatch.setattr(torch, "__version__", "9.9")
    name_of(sources=[source])
    assert len(set(made)) == len(made) == 6


def test_what_is_spoiled_is_made_anew(kept, made):
    name = name_of()
    (kept / name).write_bytes(b"go")
    assert name_of() == name
    assert made == [name, name]
    assert (kept / name).read_bytes() == b"good"


def test_nothing_is_left_of_what_could_not_be_made(kept, made, monkeypatch):
    def fails(function, example, free, options, path):
        path.write_bytes(b"go")
        raise NotImplementedError("no such step")

    monkeypatch.setattr(module, "_make", fails)
    with pytest.raises(NotImplementedError, match="no such step"):
        name_of()
    assert {p.suffix for p in kept.iterdir()} == {".lock"}


def test_where_nothing_can_be_kept_it_is_made_for_the_process(made, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TIMEWARP_CACHE_DIR", str(tmp_path / "file"))
    assert name_of() == made[0]


def test_without_a_compiler_what_is_kept_is_loaded_and_the_rest_refused(kept, made, monkeypatch):
    name = name_of()
    monkeypatch.undo()
    monkeypatch.setenv("TIMEWARP_CACHE_DIR", str(kept.parent))
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module, "_loaded", lambda path: lambda tensors: path.name)
    assert name_of() == name
    with pytest.raises(RuntimeError, match=r"expected a C\+\+ compiler, .* found none"):
        name_of("other")


LATER = """
import sys
import torch
from timewarp import ahead as module
from timewarp.ahead import ahead

def fails(*asked):
    raise AssertionError("made twice")

module._make = fails
found = ahead(None, [], [], {}, "law", [])
a, b = torch.arange(6.0).reshape(2, 3), torch.ones(1, 3)
print([part.tolist() for part in found([a, b.expand(2, 3).contiguous()])])
print("torch._inductor" in sys.modules, "torch._dynamo" in sys.modules)
"""


@pytest.mark.long
def test_another_process_loads_it_for_other_sizes_and_traces_nothing(kept):
    found = ahead(law, EXAMPLE, FREE, {}, "law", [])
    rng = torch.Generator().manual_seed(0)
    for sizes in ((40, 7), (1, 7), (3, 2), (0, 5)):
        a, b = torch.randn(sizes, generator=rng), torch.randn(sizes, generator=rng)
        for mine, right in zip(found([a, b]), law(a, b), strict=True):
            torch.testing.assert_close(mine, right)
    later = subprocess.run(
        [sys.executable, "-c", LATER], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    said = later.stdout.splitlines()
    assert said[1:] == ["False False"], later.stderr
    a = torch.arange(6.0).reshape(2, 3)
    assert torch.allclose(torch.tensor(eval(said[0])[0]), a.sum(-1))
