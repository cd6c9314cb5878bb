"""The built wheel works away from the checkout, and carries its checkpoints and peptides."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("timewarp_md-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def timewarp(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The installed command, run from another directory."""
    env = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, str(installed / "bin" / "timewarp"), *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_every_file_of_the_package_is_in_the_wheel_and_no_test_is(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, prefix in (("timewarp", ""), ("checkpoints", "timewarp/"), ("peptides", "timewarp/")):
        files = [p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        assert files, folder
        assert {prefix + str(p.relative_to(ROOT)) for p in files} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_info_finds_everything_inside_the_package(installed, tmp_path):
    done = timewarp(installed, tmp_path, "info")
    assert done.returncode == 0, done.stderr
    found = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()]
    assert str(ROOT) not in done.stdout
    for folder, suffix in (("peptides", ".pdb"), ("checkpoints", ".json")):
        for file in (ROOT / folder).glob(f"*{suffix}"):
            inside = installed / "timewarp" / folder / file.name
            assert any(f"{file.stem} in {inside}" in line for line in found), file


def test_build_works_from_the_wheel(installed, tmp_path):
    done = timewarp(installed, tmp_path, "build", "GA", "--out", "GA.pdb")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "GA.pdb").read_text().startswith("ATOM")


def test_sampling_works_from_the_wheel_without_naming_a_checkpoint(installed, tmp_path):
    pdb = installed / "timewarp" / "peptides" / "AA.pdb"
    done = timewarp(
        installed, tmp_path, "sample", str(pdb), "--out", "run", "--steps", "5", "--chains", "2", "--warm-up", "4"
    )
    assert done.returncode == 0, done.stderr
    assert '"exact": true' in (tmp_path / "run" / "report.json").read_text()
