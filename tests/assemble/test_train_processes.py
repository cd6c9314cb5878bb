"""Training in two processes."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import torch

from timewarp.assemble.train import trained

from .runs import run_of, state_of


def test_two_processes_do_what_one_does(data, tmp_path):
    run = run_of(data, tmp_path / "one", steps=6, frames=8)
    trained(run)
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from pathlib import Path
        from tests.assemble.runs import run_of
        from timewarp.assemble.train import trained
        trained(run_of(Path(sys.argv[1]), Path(sys.argv[2]), steps=6, frames=8))
    """)
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    env |= {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}  # what torchrun sets
    command = [sys.executable, str(script), str(data), str(tmp_path / "two")]
    both = [
        subprocess.Popen(command, env=env | {"RANK": rank}, stderr=subprocess.PIPE, text=True) for rank in ("0", "1")
    ]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    one, two = state_of(run.out), state_of(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-4, rtol=2e-3)
    assert torch.equal(one["rng"], two["rng"])
