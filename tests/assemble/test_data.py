"""The command `timewarp data`: which sequences it makes, which never, and what it refuses before it begins."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from timewarp.assemble import data as command
from timewarp.assemble import peptide as building
from timewarp.assemble.data import EVERY_DIPEPTIDE, drawn, names
from timewarp.assemble.directory import claimed
from timewarp.assemble.generate import Shard
from timewarp.assemble.manifest import manifest
from timewarp.claim import DirectoryRefused
from timewarp.md.faults import InputError
from timewarp.settings import DataSettings, Device, SettingsError

TINY = {"walkers": 6, "frames": 2, "warm_up": 4}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Charts from a very short walk: no law here depends on how good they are."""
    for name, value in {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}.items():
        monkeypatch.setattr(building, name, value)


def asked(tmp_path, *sequences, **changes):
    return DataSettings(**{"sequences": sequences, "out": tmp_path / "out", "device": Device.CPU} | TINY | changes)


def made(settings, stop=lambda: False):
    told = []
    report = command(settings, lambda *row: told.append(row), stop)
    return report, told


def listed(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_all_dipeptides_are_four_hundred_in_an_order_of_the_seed(tmp_path):
    orders = [names(asked(tmp_path, EVERY_DIPEPTIDE, seed=seed))[0] for seed in (0, 0, 1)]
    assert [len(set(order)) for order in orders] == [400, 400, 400]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != sorted(orders[0])
    assert set("".join(orders[0])) == set("ACDEFGHIKLMNPQRSTVWY")


def test_sequences_come_from_words_and_files_each_once(tmp_path):
    path = listed(tmp_path / "list.txt", "# a comment", "AG  the first", "", "GS # the second", "ALA-VAL, third")
    wanted, excluded = names(asked(tmp_path, "GS", str(path), "ACE-ALA-NME"))
    assert (wanted, excluded) == (["GS", "AG", "AV", "ACE-ALA-NME"], [])


def test_what_is_excluded_is_never_made_however_it_is_spelled(tmp_path):
    first = listed(tmp_path / "test.txt", "gly-ala", "AVSA", "# GS")
    second = listed(tmp_path / "more.txt", "GV")
    settings = asked(tmp_path, "GA", "GS", "GLY-VAL", exclude=(first, second))
    assert names(settings) == (["GS"], ["GA", "GV"])
    every, excluded = names(replace(settings, sequences=(EVERY_DIPEPTIDE,)))
    assert (len(every), sorted(excluded)) == (398, ["GA", "GV"])
    with pytest.raises(SettingsError, match="expected one that is not excluded, got 1 that are"):
        names(replace(settings, sequences=("GA",)))


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"sequences": ("AG", "AXA")}, InputError, "found X at place 2 of AXA"),
        ({"sequences": ("A",)}, InputError, "expected two residues or a cap"),
        ({"sequences": ("lists/none.txt",)}, InputError, "expected a sequence such as AA"),
        ({"device": Device.CUDA}, SettingsError, "expected cpu or auto for timewarp data, got cuda"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(tmp_path, change, error, complaint):
    settings = replace(asked(tmp_path, "AG"), **change)
    with pytest.raises(error, match=complaint):
        made(settings)
    assert not settings.out.exists()


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"expected a text file of sequences at .*none.txt"):
        names(asked(tmp_path, "AG", exclude=(tmp_path / "none.txt",)))


def test_a_run_makes_shards_stops_when_asked_and_goes_on(tmp_path):
    settings = asked(tmp_path, "GG", "AG", "GA")
    count = iter(range(10))
    report, told = made(settings, stop=lambda: next(count) >= 1)
    assert (report["peptides"], report["frames"], report["remain"]) == (1, 12, 2)
    assert report["message"].startswith("made 1 peptides, 12 frames, in ")
    assert [share for share, _ in told] == [0.0, 1 / 3]
    assert (settings.out / "GG.safetensors").is_file()
    with pytest.raises(DirectoryRefused, match="holds a run; continue it with --resume"):
        made(settings)
    with pytest.raises(DirectoryRefused, match="was started with walkers 6, not 7"):
        made(replace(settings, walkers=7, resume=True))
    report, told = made(replace(settings, sequences=("GG", "GA"), resume=True))
    assert (report["there"], report["peptides"], report["remain"]) == (1, 1, 0)
    assert Shard.read(settings.out / "GA.safetensors").positions.shape == (12, 20, 3)
    assert json.loads((settings.out / "data.json").read_text())["walkers"] == 6


def test_a_time_limit_is_kept_between_peptides(tmp_path):
    report, _ = made(asked(tmp_path, "GG", "AG", seconds=1e-6))
    assert (report["peptides"], report["remain"]) == (0, 2)


def test_random_words_are_of_the_seed_and_never_what_is_excluded(tmp_path):
    few, _ = names(asked(tmp_path, "random-2-3x40", seed=3))
    many, _ = names(asked(tmp_path, "random-2-3x60", seed=3))
    other, _ = names(asked(tmp_path, "random-2-3x40", seed=4))
    assert (len(set(few)), len(set(many)), many[:40]) == (40, 60, few)
    assert few != other
    assert {len(name) for name in many} == {2, 3}
    assert 15 < sum(len(name) == 2 for name in many) < 45
    path = listed(tmp_path / "never.txt", *few[:20])
    without, left_out = names(asked(tmp_path, "random-2-3x40", seed=3, exclude=(path,)))
    assert without == [name for name in drawn(2, 3, 60, 3, set()) if name not in few[:20]]
    assert (len(without), left_out) == (40, [])
    both, _ = names(asked(tmp_path, few[5], "random-2-3x10", seed=3))
    assert (len(both), both.count(few[5])) == (11, 1)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("random-1-3x4", "expected lengths from 2 to 10 residues, got random-1-3x4"),
        ("random-4-3x4", "expected lengths from 2 to 10 residues"),
        ("random-2-11x4", "expected lengths from 2 to 10 residues"),
        ("random-2-3x201", "expected at most 200 sequences"),
    ],
)
def test_random_words_that_cannot_be_meant_are_refused(tmp_path, word, complaint):
    with pytest.raises(SettingsError, match=complaint):
        names(asked(tmp_path, word))


def test_two_runs_do_not_share_a_directory(tmp_path):
    settings = asked(tmp_path, "GG", resume=True)
    with claimed(settings.out, ("data.json",), False), pytest.raises(DirectoryRefused, match="in use by another run"):
        made(settings)


BLOCKED = """
    import sys
    from pathlib import Path
    for name in ("openmm", "pdbfixer", "mdtraj"):
        sys.modules[name] = None  # an import of it raises ImportError
    from timewarp import cli
    from timewarp.assemble import peptide
    peptide.CONFORMERS, peptide.WALKERS, peptide.ROUNDS = 2, 6, (4,)
    sys.exit(cli.execute(sys.argv[1:]))
"""


def without_openmm(*arguments):
    command = [sys.executable, "-c", textwrap.dedent(BLOCKED), "data", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_exported_molecules_give_the_same_data_where_openmm_is_not(tmp_path):
    molecules = tmp_path / "molecules"
    excluded = listed(tmp_path / "never.txt", "GA")
    report, _ = made(asked(tmp_path, "GG", "GA", "AG", exclude=(excluded,), out=molecules, export=True))
    assert report["message"].startswith("exported 2 molecules, 0 were there, 0 remain, 1 left out as excluded")
    assert sorted(p.name for p in molecules.iterdir() if p.suffix) == ["AG.molecule", "GG.molecule", "export.json"]
    with pytest.raises(DirectoryRefused, match="continue it with --resume"):
        made(asked(tmp_path, "GA", out=molecules, export=True))
    report, _ = made(asked(tmp_path, "GA", out=molecules, export=True, resume=True))
    assert report["peptides"] == 1

    options = ["--walkers", "6", "--frames", "2", "--warm-up", "4", "--from-export", molecules]
    status, said, wrong = without_openmm("AG", *options, "--out", tmp_path / "there")
    assert (status, wrong) == (0, "")
    assert "made 1 peptides, 12 frames" in said
    made(asked(tmp_path, "AG"))
    here, there = (load_file(tmp_path / part / "AG.safetensors") for part in ("out", "there"))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[k], there[k]) for k in here)
    # the whole process knows no OpenMM
    status, _, wrong = without_openmm("AG", "--out", tmp_path / "none")
    assert status != 0
    assert "openmm" in wrong


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"from_export": "none"}, "expected a directory that timewarp data --export wrote, found none"),
        ({"from_export": "molecules", "sequences": ("GG", "GV")}, "expected molecules of .*, got GV"),
    ],
)
def test_exports_that_cannot_be_read_are_refused(tmp_path, change, complaint):
    made(asked(tmp_path, "GG", out=tmp_path / "molecules", export=True))
    settings = replace(asked(tmp_path, "GG"), **change | {"from_export": tmp_path / change["from_export"]})
    with pytest.raises(SettingsError, match=complaint):
        made(settings)
    (tmp_path / "molecules" / "GG.molecule").unlink()
    with pytest.raises(SettingsError, match="found 1 missing, GG first; export them again with --resume"):
        made(replace(settings, sequences=(), from_export=tmp_path / "molecules"))


def test_export_and_from_export_exclude_one_another(tmp_path):
    with pytest.raises(SettingsError, match="one of --export and --from-export, got both"):
        asked(tmp_path, "GG", export=True, from_export=tmp_path)
    with pytest.raises(SettingsError, match="--exclude: expected it together with --export"):
        asked(tmp_path, from_export=tmp_path, exclude=(tmp_path / "list",))


def test_the_manifest_is_rebuilt_from_the_shards(tmp_path):
    settings = asked(tmp_path, "GG", "GA", seed=5)
    made(settings)
    path = settings.out / "manifest.json"
    rows = json.loads(path.read_text())
    assert [row["sequence"] for row in rows] == ["GA", "GG"]
    assert rows[1] | {"acceptance": 0, "mixing": 0} == {
        "sequence": "GG", "file": "GG.safetensors", "frames": 12, "atoms": 17, "seed": 5,
        "recipe": {"walkers": 6, "warm_up": 4, "frames": 2, "every": 2.0, "temperature": 310.0},
        "acceptance": 0, "mixing": 0,
    }  # fmt: skip
    assert rows[0]["mixing"].keys() == {"halves", "starts", "rhat", "ess", "agree"}
    path.write_text("lost")
    (settings.out / "GA.safetensors").unlink()
    assert manifest(settings.out) == rows[1:]
    report, _ = made(replace(settings, resume=True))
    assert (report["peptides"], report["there"]) == (1, 1)
    assert json.loads(path.read_text()) == rows
