"""The command `timewarp train`, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from timewarp.training.checkpoint import Checkpoint

from .runs import state_of


def test_the_command_stops_when_asked_and_goes_on(data, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "timewarp.cli", "train", str(data), "--out", str(out), "--batch", "4"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*command, "--steps", "1000000"], env=env, stdout=subprocess.PIPE, text=True)
    while not (out / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "stopped when asked, and saved; --resume continues" in said
    step = int(state_of(out)["step"])
    done = subprocess.run(
        [*command, "--steps", str(step + 1), "--resume"], env=env, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 steps in ")
    assert Checkpoint.load(out / "flow").card["steps"] == step + 1
