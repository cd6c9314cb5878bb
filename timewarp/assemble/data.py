"""`timewarp data`: shards of thermal frames for many peptides, from lists of sequences."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from timewarp.assemble.directory import claimed
from timewarp.assemble.generate import Recipe, generate
from timewarp.atomic import write_atomically
from timewarp.claim import compare
from timewarp.settings import DataSettings, Device, Progress, Report, SettingsError, Stop
from timewarp.state import Molecule

EVERY_DIPEPTIDE = "all-dipeptides"
WORTH_COMPILING = 100_000  # moves, from which fusing the loops of the energy takes less time than it saves


def data(settings: DataSettings, progress: Progress, stop: Stop) -> Report:
    """Make one shard a peptide in `settings.out`, leaving those that are there.

    Raises:
        InputError: if a sequence cannot be built, before anything is made.
        SettingsError: if nothing is left to make, or a GPU is asked for.
        DirectoryRefused: if `out` cannot serve, or holds data that were made otherwise.
    """
    if settings.device is Device.CUDA:
        raise SettingsError("--device: expected cpu or auto for timewarp data, got cuda; torsion moves run on the CPU")
    began = time.monotonic()
    wanted, excluded = names(settings)
    recipe = Recipe(settings.walkers, settings.warm_up, settings.frames, temperature=settings.temperature)
    identity = {"seed": settings.seed, **asdict(recipe)}
    with claimed(settings.out, ("data.json", "*.safetensors"), settings.resume):
        record = settings.out / "data.json"
        if record.exists():
            compare(settings.out, json.loads(record.read_text()), identity)
        write_atomically(record, json.dumps(identity, indent=1).encode() + b"\n")
        there = [name for name in wanted if (settings.out / f"{name}.safetensors").exists()]
        left = [name for name in wanted if name not in there]
        made: list[str] = []

        def told(line: str) -> None:
            made.append(line)
            progress((len(there) + len(made)) / len(wanted), line)

        def over() -> bool:
            return stop() or (settings.seconds is not None and time.monotonic() - began > settings.seconds)

        progress(len(there) / len(wanted), f"{len(left)} peptides to make")
        compiled = len(left) * moves(recipe) > WORTH_COMPILING and shutil.which("c++") is not None
        frames = generate([(n, loader(n)) for n in left], settings.out, recipe, settings.seed, told, over, compiled)
    seconds = time.monotonic() - began
    remain = len(left) - len(made)
    return {
        "peptides": len(made),
        "frames": frames,
        "there": len(there),
        "excluded": excluded,
        "remain": remain,
        "seconds": seconds,
        "message": f"made {len(made)} peptides, {frames} frames, in {seconds:.0f} s; "
        f"{len(there)} were there, {remain} remain, {len(excluded)} left out as excluded",
    }


def names(settings: DataSettings) -> tuple[list[str], list[str]]:
    """(Sequences to make, sequences left out because they are excluded), by the name that `build` prints.

    Raises:
        InputError: if one cannot be built.
        SettingsError: if a list cannot be read, or nothing is left.
    """
    from timewarp.md.build import parse
    from timewarp.md.system import title

    never = {title(parse(line)) for path in settings.exclude for line in listed(path)}
    asked = list(dict.fromkeys(title(parse(s)) for word in settings.sequences for s in expanded(word, settings.seed)))
    wanted = [name for name in asked if name not in never]
    if not wanted:
        raise SettingsError(f"SEQUENCE...: expected one that is not excluded, got {len(asked)} that are")
    return wanted, [name for name in asked if name in never]


def expanded(word: str, seed: int) -> Iterator[str]:
    """The sequences that one argument stands for."""
    from timewarp.md.residues import LETTERS

    if word == EVERY_DIPEPTIDE:
        every = ["".join(pair) for pair in itertools.product(sorted(LETTERS), repeat=2)]
        random.Random(seed).shuffle(every)
        yield from every
    elif Path(word).is_file():
        yield from listed(Path(word))
    else:
        yield word


def listed(path: Path) -> Sequence[str]:
    """The sequences of a file: one a line, the first word of it; what follows a # is left out.

    Raises:
        SettingsError: if it is not a text file.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"expected a text file of sequences at {path}, found none: {error}") from error
    return [found[0] for line in lines if (found := re.findall(r"[^\s,]+", line.partition("#")[0]))]


def moves(recipe: Recipe) -> float:
    """About how many torsion moves one peptide takes, all walkers together; most have 5 to 10 free torsions."""
    return recipe.walkers * (recipe.warm_up + recipe.frames * recipe.every * 7)


def loader(name: str) -> Callable[[], Molecule]:
    """A function that builds the molecule of a sequence."""

    def load() -> Molecule:
        from timewarp.md.export import export
        from timewarp.md.system import prepare_sequence

        prepared = prepare_sequence(name)
        return export(prepared.topology, prepared.system, prepared.positions)

    return load
