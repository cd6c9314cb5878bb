"""The list of what a directory of training data holds, rebuilt from its shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from timewarp.atomic import write_atomically

MANIFEST = "manifest.json"
TOLD = ("halves", "starts", "rhat", "ess", "agree")


def manifest(out: Path) -> list[dict[str, Any]]:
    """A row for each shard of `out`, by name: what was made, how, from which seed, and whether it is well mixed."""
    return [_row(path) for path in sorted(out.glob("*.safetensors"))]


def write_manifest(out: Path) -> list[dict[str, Any]]:
    """Put `manifest.json` beside the shards, and return its rows."""
    rows = manifest(out)
    write_atomically(out / MANIFEST, (json.dumps(rows, indent=1) + "\n").encode())
    return rows


def _row(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        frames, atoms, _ = file.get_slice("positions").get_shape()
    row = {"sequence": facts["sequence"], "file": path.name, "frames": frames, "atoms": atoms}
    row |= {name: facts[name] for name in ("seed", "recipe", "acceptance")}
    return row | {"mixing": {name: facts["mixing"][name] for name in TOLD} if "mixing" in facts else None}
