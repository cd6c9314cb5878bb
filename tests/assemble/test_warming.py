"""The warm-up finds how often each kernel is picked; where the flow is useless the chains rely on local moves."""

import json
from itertools import pairwise

import pytest
import torch

from timewarp import assemble
from timewarp.assemble import exploration
from timewarp.assemble import peptide as building
from timewarp.assemble.sample import MOVES
from timewarp.assemble.warming import turns
from timewarp.resources import checkpoint_path, peptide_path
from timewarp.settings import SampleSettings
from timewarp.training.checkpoint import Checkpoint

QUICK = {building: {"CONFORMERS": 4, "WALKERS": 16, "ROUNDS": (30,)}, exploration: {"WALKERS": 8, "STEPS": 20}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for module, values in QUICK.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


def sampled(out, **changes):
    given = {"pdb": peptide_path("AA"), "out": out, "steps": 30, "chains": 4, "width": 30, "seed": 3, "warm_up": 60}
    assemble.sample(SampleSettings(**(given | changes)), lambda *_: None, lambda: False)
    return json.loads((out / "report.json").read_text())


def test_a_flow_of_random_weights_leaves_the_work_to_local_moves(tmp_path):
    shipped = Checkpoint.load(checkpoint_path("2aa").with_suffix(""))
    rng = torch.Generator().manual_seed(0)
    noise = {
        name: torch.randn(values.shape, generator=rng) if values.is_floating_point() else values
        for name, values in shipped.tensors.items()
    }
    Checkpoint(noise, {k: v for k, v in shipped.card.items() if k != "version"}).save(tmp_path / "noise")
    report = sampled(tmp_path / "AA", checkpoint=str(tmp_path / "noise.json"), steps=40)
    assert report["exact"] is True
    assert report["warm_up"]["weights"]["flow"] < 0.5
    assert any("the chains rely on local moves" in notice for notice in report["notices"])
    local = [report["by_kernel"][name] for name in ("torsions", "hamiltonian")]
    assert sum(accepted for _, accepted in local) > 0
    assert sum(tested for tested, _ in local) > 2 * report["by_kernel"].get("flow", [0, 0])[0]


def test_a_flow_that_is_of_use_is_used(tmp_path):
    report = sampled(tmp_path / "AA")
    found = report["warm_up"]
    assert found["found"]
    assert found["weights"]["flow"] > 0.5
    assert sum(found["weights"].values()) == pytest.approx(1)
    assert found["rates"]["flow"] > 5 * max(found["rates"]["torsions"], found["rates"]["hamiltonian"])
    assert not any("local moves" in notice for notice in report["notices"])
    # the warm-up is not among the frames, and what it spent is counted
    for made, steps in ((report["by_kernel"], 30), (found["by_kernel"], 60)):
        each = {name: 1 if name in ("flow", "regrowth", "turning") else MOVES for name in made}
        frames = {name: tested / each[name] for name, (tested, _) in made.items()}
        assert sum(frames.values()) == 4 * steps


@pytest.mark.parametrize("steps", [0, 1, 5, 60, 100])
def test_the_kernels_take_turns_in_blocks(steps):
    order = list(turns(steps, (0.6, 0.25, 0.15)))
    assert len(order) == steps
    assert sum(a != b for a, b in pairwise(order)) <= 3 * 3 - 1
    if steps == 100:
        assert [order.count(k) for k in range(3)] == [60, 25, 15]
        assert order[-1] == 0  # the flow is last, and goes on
