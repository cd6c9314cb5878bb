"""Shards from a flow's draws: the frames are thermal, and the draws stand behind them."""

from timewarp.assemble.data import drawing, loader
from timewarp.assemble.flown import OWN
from timewarp.assemble.frames import Frames
from timewarp.assemble.generate import Recipe, Shard, generate
from timewarp.energy import Potential

WALKERS = 64


def test_frames_are_thermal_and_draws_stand_behind_them(tmp_path):
    flow, name = drawing("2aa")
    recipe = Recipe(WALKERS, 20, 4, 1.0, flow=name)
    assert (
        generate([("AG", loader("AG"))], tmp_path, recipe, 0, lambda _: None, compiled=False, flow=flow) == 4 * WALKERS
    )
    shard = Shard.read(tmp_path / "AG.safetensors")
    frames = Frames.read(tmp_path / "AG.safetensors")
    assert len(frames) == 4 * WALKERS
    assert len(frames.torsions) == 4 * WALKERS + OWN
    assert shard.facts["recipe"]["flow"] == name
    assert 0 < shard.facts["acceptance"] < 1
    energy = Potential(shard.molecule, 310.0)(shard.positions).double()
    other = generate(
        [("AG", loader("AG"))], tmp_path / "walked", Recipe(WALKERS, 160, 4), 1, lambda _: None, compiled=False
    )
    assert other == 4 * WALKERS
    walked = Shard.read(tmp_path / "walked" / "AG.safetensors")
    hot = Potential(walked.molecule, 310.0)(walked.positions).double()
    error = (energy.var() / WALKERS + hot.var() / WALKERS).sqrt()  # frames of a walker may depend on one another
    assert abs(energy.mean() - hot.mean()) < 4 * error
    assert 0.8 < energy.std() / hot.std() < 1.25
