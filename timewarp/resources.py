"""The files that come with the package: trained checkpoints and example peptides.

An installed wheel carries both folders inside the package; a source checkout has them beside it.
"""

from __future__ import annotations

from pathlib import Path


class ResourceMissing(FileNotFoundError):
    """There is no such checkpoint or peptide; the message says what there is."""


_PACKAGE = Path(__file__).resolve().parent


def folder(kind: str) -> Path:
    """The folder `checkpoints` or `peptides`, inside the package if it is there, else beside it."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def checkpoints() -> list[Path]:
    """Every checkpoint that came with the package, as its .json file."""
    return sorted(path for path in folder("checkpoints").glob("*.json") if path.with_suffix(".safetensors").is_file())


def peptides() -> list[Path]:
    """Every example peptide that came with the package."""
    return sorted(folder("peptides").glob("*.pdb"))


def checkpoint_path(name: str | Path) -> Path:
    """The .json file of a checkpoint: the name of one that came with the package, or a path of one's own.

    Raises:
        ResourceMissing: with what was looked for, and what there is.
    """
    own = Path(name)
    if own.suffix in (".json", ".safetensors") or own.parent != Path():
        return _existing(own.with_suffix(".json"), "checkpoint", checkpoints())
    return _existing(folder("checkpoints") / f"{own}.json", "checkpoint", checkpoints())


def peptide_path(name: str | Path) -> Path:
    """The .pdb file of an example peptide.

    Raises:
        ResourceMissing: with what was looked for, and what there is.
    """
    return _existing(folder("peptides") / f"{Path(name).stem}.pdb", "peptide", peptides())


def _existing(path: Path, kind: str, there: list[Path]) -> Path:
    needed = [path, path.with_suffix(".safetensors")] if kind == "checkpoint" else [path]
    for file in needed:
        if not file.is_file():
            names = ", ".join(p.stem for p in there) or "none"
            raise ResourceMissing(f"no {kind} file {file}; the package has: {names}")
    return path
