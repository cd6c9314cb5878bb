"""Shards of two small peptides, made once a session, from which small flows are trained."""

import shutil

import pytest

from timewarp.assemble import peptide as building
from timewarp.assemble.data import loader
from timewarp.assemble.generate import Recipe, generate


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Two peptides, one of them under three names: frames of a run do not say whose they are."""
    out = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}.items():
            patch.setattr(building, name, value)
        pairs = [(name, loader(name)) for name in ("GG", "AG")]
        generate(pairs, out, Recipe(walkers=8, warm_up=6, frames=2), 0, lambda line: None, compiled=False)
    for name in ("copy", "late"):
        shutil.copy(out / "GG.safetensors", out / f"{name}.safetensors")
    return out


@pytest.fixture
def data(shards, tmp_path):
    """The shards without the one that comes later."""
    return shutil.copytree(shards, tmp_path / "data", ignore=lambda *_: ["late.safetensors"])
