"""`timewarp data`: shards of thermal frames for many peptides, from lists of sequences."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from timewarp.assemble import exported
from timewarp.assemble.directory import claimed
from timewarp.assemble.flows import load_flow
from timewarp.assemble.generate import Recipe, generate
from timewarp.assemble.manifest import write_manifest
from timewarp.assemble.redrawn import redraw
from timewarp.atomic import write_atomically
from timewarp.claim import compare
from timewarp.flow.internal import Internal
from timewarp.resources import checkpoint_path
from timewarp.settings import DataSettings, Device, Progress, Report, SettingsError, Stop
from timewarp.state import Molecule
from timewarp.training.checkpoint import Checkpoint

EVERY_DIPEPTIDE = "all-dipeptides"
RANDOM = re.compile(r"random-(\d+)-(\d+)x(\d+)")
LONGEST = 10  # residues
WORTH_COMPILING = 100_000  # moves, from which fusing the loops of the energy takes less time than it saves


def data(settings: DataSettings, progress: Progress, stop: Stop) -> Report:
    """Make one shard a peptide in `settings.out`, leaving those that are there; or one molecule file, to export.

    Raises:
        InputError: if a sequence cannot be built, before anything is made.
        SettingsError: if nothing is left to make, a GPU is asked for, or an export cannot be read.
        DirectoryRefused: if `out` cannot serve, or holds data that were made otherwise.
    """
    if settings.device is Device.CUDA:
        raise SettingsError("--device: expected cpu or auto for timewarp data, got cuda; torsion moves run on the CPU")
    if settings.redraw is not None:
        return renew(settings, settings.redraw, progress, stop)
    if settings.from_export is not None:
        wanted = list(exported.chosen(settings.from_export, settings.sequences))
        return make(settings, wanted, [], partial(exported.reader, settings.from_export), progress, stop)
    wanted, excluded = names(settings)
    if settings.export:
        return export(settings, wanted, excluded, progress, stop)
    return make(settings, wanted, excluded, loader, progress, stop)


def make(
    settings: DataSettings,
    wanted: list[str],
    excluded: list[str],
    load: Callable[[str], Callable[[], Molecule]],
    progress: Progress,
    stop: Stop,
) -> Report:
    """The shards of `wanted`, with `manifest.json` beside them."""
    began = time.monotonic()
    flow, drawer = drawing(settings.flow) if settings.flow else (None, None)
    recipe = Recipe(
        settings.walkers, settings.warm_up, settings.frames, temperature=settings.temperature,
        tempering=settings.tempering, flow=drawer,
    )  # fmt: skip
    identity = {"seed": settings.seed, **recipe.facts()}
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
            write_manifest(settings.out)
            progress((len(there) + len(made)) / len(wanted), line)

        def over() -> bool:
            return stop() or (settings.seconds is not None and time.monotonic() - began > settings.seconds)

        progress(len(there) / len(wanted), f"{len(left)} peptides to make")
        compiled = len(left) * moves(recipe) > WORTH_COMPILING and shutil.which("c++") is not None
        frames = generate([(n, load(n)) for n in left], settings.out, recipe, settings.seed, told, over, compiled, flow)
        rows = write_manifest(settings.out)
    seconds = time.monotonic() - began
    remain = len(left) - len(made)
    unmixed = [row["sequence"] for row in rows if row["mixing"] is not None and not row["mixing"]["agree"]]
    return {
        "peptides": len(made),
        "frames": frames,
        "there": len(there),
        "excluded": excluded,
        "remain": remain,
        "unmixed": unmixed,
        "seconds": seconds,
        "message": f"made {len(made)} peptides, {frames} frames, in {seconds:.0f} s; "
        f"{len(there)} were there, {remain} remain, {len(excluded)} left out as excluded; "
        f"halves or starts of {len(unmixed)} of {len(rows)} do not agree",
    }


def renew(settings: DataSettings, source: Path, progress: Progress, stop: Stop) -> Report:
    """The shards of `source`, those of `settings.sequences` where there are any, with frames of a checkpoint's chains.

    Raises:
        SettingsError: if there are none, or the checkpoint cannot draw them.
    """
    flow, _ = drawing(settings.checkpoint)
    shards = sorted(source.glob("*.safetensors"))
    if settings.sequences:
        wanted, _ = names(settings)
        shards = [path for path in shards if path.stem in wanted]
    if not shards:
        raise SettingsError(f"--redraw: expected shards (NAME.safetensors) in {source}, found none")
    made: list[str] = []

    def told(line: str) -> None:
        made.append(line)
        progress(len(made) / len(shards), line)

    identity = {"seed": settings.seed, "frames": settings.frames, "checkpoint": settings.checkpoint}
    with claimed(settings.out, ("data.json", "*.safetensors"), settings.resume):
        record = settings.out / "data.json"
        if record.exists():
            compare(settings.out, json.loads(record.read_text()), identity)
        write_atomically(record, json.dumps(identity, indent=1).encode() + b"\n")
        compiled = len(shards) > 3 and shutil.which("c++") is not None
        written = redraw(shards, flow, settings.out, settings.frames, settings.seed, told, stop, compiled)
        write_manifest(settings.out)
    return {"peptides": written, "message": f"drew {written} peptides anew, of {len(shards)} in {source}"}


def drawing(checkpoint: str) -> tuple[Internal, str]:
    """The flow of a checkpoint that is to draw frames, and the fingerprint of its weights.

    Raises:
        SettingsError: if it cannot draw them.
    """
    loaded = Checkpoint.load(checkpoint_path(checkpoint).with_suffix(""))
    flow = load_flow(loaded)
    if not isinstance(flow, Internal) or flow.config.velocities:
        raise SettingsError("--checkpoint: expected an internal flow without velocity channels, got another")
    return flow, loaded.fingerprint


def export(settings: DataSettings, wanted: list[str], excluded: list[str], progress: Progress, stop: Stop) -> Report:
    """The molecules of `wanted` alone, for `--from-export` on a machine without OpenMM."""
    with claimed(settings.out, (exported.RECORD, f"*{exported.SUFFIX}"), settings.resume):
        record = settings.out / exported.RECORD
        before = json.loads(record.read_text())["sequences"] if record.exists() else []
        every = list(dict.fromkeys([*before, *wanted]))
        write_atomically(record, json.dumps({"sequences": every}, indent=1).encode() + b"\n")
        left = [name for name in every if not (settings.out / f"{name}{exported.SUFFIX}").exists()]
        done = 0

        def told(name: str) -> None:
            nonlocal done
            done += 1
            progress(done / len(left), name)

        pairs = itertools.takewhile(lambda _: not stop(), ((name, loader(name)) for name in left))
        written = exported.write_molecules(pairs, settings.out, told)
    return {
        "peptides": written,
        "excluded": excluded,
        "message": f"exported {written} molecules, {len(every) - len(left)} were there, {len(left) - written} remain, "
        f"{len(excluded)} left out as excluded; go on with timewarp data --from-export {settings.out}",
    }


def names(settings: DataSettings) -> tuple[list[str], list[str]]:
    """(Sequences to make, sequences left out because they are excluded), by the name that `build` prints.

    Raises:
        InputError: if one cannot be built.
        SettingsError: if a list cannot be read, or nothing is left.
    """
    from timewarp.md.sequence import parse
    from timewarp.md.system import title

    never = {title(parse(line)) for path in settings.exclude for line in listed(path)}
    wanted: dict[str, None] = {}
    excluded: dict[str, None] = {}
    for word in settings.sequences:
        if random_word := RANDOM.fullmatch(word):
            shortest, longest, count = random_word.groups()
            wanted |= dict.fromkeys(drawn(int(shortest), int(longest), int(count), settings.seed, {*never, *wanted}))
            continue
        for name in (title(parse(sequence)) for sequence in expanded(word, settings.seed)):
            (excluded if name in never else wanted)[name] = None
    if not wanted:
        raise SettingsError(f"SEQUENCE...: expected one that is not excluded, got {len(excluded)} that are")
    return list(wanted), list(excluded)


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


def drawn(shortest: int, longest: int, count: int, seed: int, without: set[str]) -> list[str]:
    """Random sequences of the standard residues, all lengths equally often, none of them in `without`.

    A longer list of the same seed begins with the shorter one.

    Raises:
        SettingsError: if the lengths cannot be meant, or there are not enough such sequences.
    """
    from timewarp.md.residues import LETTERS
    from timewarp.md.sequence import parse
    from timewarp.md.system import title

    word = f"random-{shortest}-{longest}x{count}"
    if not 2 <= shortest <= longest <= LONGEST:
        raise SettingsError(f"SEQUENCE...: expected lengths from 2 to {LONGEST} residues, got {word}")
    if 2 * count > len(LETTERS) ** shortest:
        raise SettingsError(f"SEQUENCE...: expected at most {len(LETTERS) ** shortest // 2} sequences, got {word}")
    rng, letters, found = random.Random(f"{seed}:{shortest}-{longest}"), sorted(LETTERS), dict[str, None]()
    while len(found) < count:
        name = title(parse("".join(rng.choices(letters, k=rng.randint(shortest, longest)))))
        if name not in without:
            found[name] = None
    return list(found)


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
