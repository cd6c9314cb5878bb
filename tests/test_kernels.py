"""The GPU's kernels in Triton's interpreter, which wants to be asked for before torch is loaded."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: there is none for here"
)
def test_the_kernels_of_a_gpu_compute_what_a_cpu_does():
    """The tests of both kernels; with a GPU they run on it in the ordinary way."""
    files = [str(HERE / "energy" / "test_block.py"), str(HERE / "flow" / "test_placing.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, cwd=HERE.parent
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
