"""Molecules as files, to be sampled where OpenMM is not installed: `timewarp data --export`, then `--from-export`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from timewarp.atomic import write_atomically
from timewarp.settings import SettingsError
from timewarp.state import Molecule

SUFFIX = ".molecule"
RECORD = "export.json"


def write_molecules(
    molecules: Iterable[tuple[str, Callable[[], Molecule]]], out: Path, told: Callable[[str], None]
) -> int:
    """Write one file a molecule, whole or not at all, leaving those that exist; returns how many were written."""
    written = 0
    for name, load in molecules:
        path = out / f"{name}{SUFFIX}"
        if path.exists():
            continue
        arrays = {key: value.contiguous() for key, value in load().arrays().items()}
        write_atomically(path, save(arrays, {"molecule": json.dumps({"sequence": name})}))
        written += 1
        told(name)
    return written


def molecules(folder: Path) -> list[str]:
    """The names of the molecules of an export, in the order that they were asked for.

    Raises:
        SettingsError: if the directory is no export, or not a whole one.
    """
    try:
        names = json.loads((folder / RECORD).read_text())["sequences"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"--from-export: expected a directory that timewarp data --export wrote, found none at {folder}: {error}"
        ) from error
    missing = [name for name in names if not (folder / f"{name}{SUFFIX}").is_file()]
    if missing:
        raise SettingsError(
            f"--from-export: expected {len(names)} molecules in {folder}, found {len(missing)} missing, {missing[0]} "
            "first; export them again with --resume"
        )
    return names


def reader(folder: Path, name: str) -> Callable[[], Molecule]:
    """A function that reads one molecule of an export."""

    def read() -> Molecule:
        path = folder / f"{name}{SUFFIX}"
        try:
            with safe_open(path, "pt") as file:
                found = json.loads(file.metadata()["molecule"])["sequence"]
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if found != name:
                raise ValueError(f"it is of {found}")
            return Molecule.from_arrays(arrays)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"--from-export: expected the molecule {name} at {path}, got {error}") from error

    return read


def chosen(folder: Path, sequences: Iterable[str]) -> Iterator[str]:
    """The molecules of an export that are asked for, all where none is.

    Raises:
        SettingsError: if one is not there.
    """
    there = molecules(folder)
    asked = list(dict.fromkeys(sequences))
    for name in asked:
        if name not in there:
            raise SettingsError(
                f"SEQUENCE...: expected molecules of {folder}, by the names of its files, got {name}; leave them out "
                "to take all"
            )
    yield from asked or there
