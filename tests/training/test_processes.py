"""Two processes that train together take the step that one takes with both of their minibatches."""

import os
import runpy
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import torch
from safetensors.torch import load_file

TRAIN = """
    import math, os, sys
    import torch
    from safetensors.torch import save_file
    from torch import nn
    from timewarp.training.fit import Fit, FitConfig, fit
    from timewarp.training.processes import Processes

    def loss(model, batch, rng):
        x = batch.clone()
        if state.step == 4 and processes.rank == 0:
            x = x * math.nan  # bad in one process, skipped by all
        return (model(x) - batch.sum(-1, keepdim=True)).square().mean(), {"mean": float(batch.mean())}

    def draw(step, rng):
        whole = torch.randn(8, 3, generator=rng)
        return whole[processes.rank :: processes.count]

    with Processes.joined("cpu") as processes:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double().float()
        model.unused = nn.Parameter(torch.ones(2))
        state = Fit(model, loss, FitConfig(learning_rate=1e-2, warm_up=1, report=1), 0, processes)
        told = []
        # only one process is asked to stop, and both do, after the same step
        stop = lambda: processes.first and state.step == 7
        fit(state, draw, lambda step, row: told.append(row["mean"]), lambda s: None, stop=stop)
        own = torch.randn(2, generator=state._own_rng())
        heard = processes.told(f"from {processes.rank}")
        assert heard == "from 0"
        tensors = state.tensors() | {"told": torch.tensor(told), "own": own}
        save_file(tensors, f"{sys.argv[1]}/{processes.count}-{processes.rank}.safetensors")
"""


def test_two_processes_do_what_one_does(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    torchrun = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}  # what it sets, without its time
    command = [sys.executable, str(script), str(tmp_path)]
    runs = [
        subprocess.Popen(command, env=env | torchrun | {"RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script))
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
    one, first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    assert int(one["step"]) == int(first["step"]) == int(second["step"]) == 7
    assert int(one["skipped"]) == int(first["skipped"]) == 1
    assert not torch.equal(first.pop("own"), second.pop("own"))
    one.pop("own")
    for key in first:
        torch.testing.assert_close(first[key], second[key], atol=0, rtol=0)
        torch.testing.assert_close(first[key], one[key], atol=1e-5, rtol=1e-4)
