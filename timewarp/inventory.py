"""What is installed here: versions, platforms, checkpoints and example peptides, for a bug report or a first look."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from timewarp import resources

PACKAGES = ("torch", "openmm", "pdbfixer", "mdtraj", "nflows", "numpy", "scipy")


def inventory() -> Iterator[tuple[str, str]]:
    """Pairs of a name and what there is to say about it."""
    yield "timewarp", f"{_version('timewarp-md')} in {Path(__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in PACKAGES:
        yield name, _version(name)
    yield "devices", ", ".join(_devices())
    yield "openmm-runs", ", ".join(_platforms()) or "nowhere"
    for path in resources.checkpoints():
        yield "checkpoint", f"{path.stem} in {path} ({_size(path)})"
    if not resources.checkpoints():
        yield "checkpoint", f"none in {resources.folder('checkpoints')}"
    for path in resources.peptides():
        yield "peptide", f"{path.stem} in {path}"
    if not resources.peptides():
        yield "peptide", f"none in {resources.folder('peptides')}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    import torch

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return [f"cpu ({torch.get_num_threads()} threads)", *gpus]


def _platforms() -> list[str]:
    try:
        from timewarp.md.platforms import platforms
    except ImportError:
        return []
    return platforms()


def _size(path: Path) -> str:
    total = sum(file.stat().st_size for file in (path, path.with_suffix(".safetensors")))
    return f"{total / 2**20:.1f} MiB, {len(json.loads(path.read_text()))} entries"
