"""Frames drawn anew by a checkpoint's chains: of the same distribution, from shards that may be far from it."""

import json

import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from timewarp.assemble.data import data, loader
from timewarp.assemble.generate import Recipe, Shard, generate
from timewarp.assemble.redrawn import OWN
from timewarp.settings import DataSettings, SettingsError


def told(*_):
    return None


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A shard of GG: a walk that is long enough to have forgotten how hot it began."""
    out = tmp_path_factory.mktemp("walked")
    generate([("GG", loader("GG"))], out, Recipe(walkers=256, warm_up=320, frames=2), 0, told, compiled=False)
    return out


def test_frames_drawn_anew_from_one_bad_start_are_thermal(walked, tmp_path):
    shard = Shard.read(walked / "GG.safetensors")
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    same = {name: getattr(shard, name)[:1].expand(40, *getattr(shard, name).shape[1:]).contiguous()
            for name in ("positions", "torsions", "noise", "free")}  # fmt: skip
    same |= {f"molecule.{k}": v.contiguous() for k, v in shard.molecule.arrays().items()}
    same |= {f"chart.{k}": v.contiguous() for k, v in shard.whitening.items()}
    save_file(same, frozen / "GG.safetensors", metadata={"facts": json.dumps(shard.facts)})
    report = data(DataSettings(redraw=frozen, out=tmp_path / "new", frames=8), told, lambda: False)
    assert report["peptides"] == 1
    new = Shard.read(tmp_path / "new" / "GG.safetensors")
    assert len(new.positions) == 256
    assert [len(part) for part in new.drawn] == [OWN, OWN]
    assert {k: v.equal(shard.whitening[k]) for k, v in new.whitening.items()} == dict.fromkeys(new.whitening, True)
    for torsion in range(new.torsions.shape[1]):
        # every fourth frame, of chains that accept about a half
        for wave in (torch.cos, torch.sin):
            mine, walk = wave(new.torsions[::4, torsion]), wave(shard.torsions[::2, torsion])
            assert stats.ks_2samp(mine.numpy(), walk.numpy()).pvalue > 1e-3
    again = data(DataSettings(redraw=frozen, out=tmp_path / "new", frames=8, resume=True), told, lambda: False)
    assert again["peptides"] == 0


def test_a_directory_without_shards_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="expected shards"):
        data(DataSettings(redraw=tmp_path, out=tmp_path / "new"), told, lambda: False)
