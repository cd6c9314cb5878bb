"""The README keeps its word: its blocks run, and its install commands are what is tested."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"(<!-- test -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(marked: bool) -> list[tuple[str, str]]:
    return [(kind, text) for mark, kind, text in BLOCK.findall(README) if bool(mark) == marked]


@pytest.fixture(scope="module")
def timewarp_on_path(tmp_path_factory) -> dict[str, str]:
    """An environment whose `timewarp` is this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "timewarp"
    command.write_text(f"#!{sys.executable}\nfrom timewarp.cli import main\nmain()\n")
    command.chmod(0o755)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_marked_blocks_run_in_the_order_they_stand(tmp_path, timewarp_on_path):
    marked = blocks(marked=True)
    assert {kind for kind, _ in marked} == {"bash", "python"}
    for kind, text in marked:
        command = ["bash", "-e", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=timewarp_on_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_only_the_two_install_commands_are_not_run_here():
    rest = blocks(marked=False)
    assert [kind for kind, _ in rest] == ["bash", "bash"]
    for _, text in rest:
        assert len(text.splitlines()) == 1
        assert text.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c .ci/constraints.txt ")
    sample, tests = (text.strip() for _, text in rest)
    peptide = re.search(r"timewarp sample (\S+)", sample)
    assert peptide is not None
    assert (ROOT / peptide[1]).is_file()
    assert tests in (ROOT / ".ci" / "run").read_text()


def test_no_install_goes_without_the_constraints():
    assert all("-c .ci/constraints.txt" in line for line in README.splitlines() if "pip install" in line)
    pins = (ROOT / ".ci" / "constraints.txt").read_text().split()
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
