"""The command `timewarp data`: which sequences it makes, which never, and what it refuses before it begins."""

import json
from dataclasses import replace

import pytest

from timewarp.assemble import data as command
from timewarp.assemble import peptide as building
from timewarp.assemble.data import EVERY_DIPEPTIDE, names
from timewarp.assemble.generate import Shard
from timewarp.claim import DirectoryRefused
from timewarp.md.faults import InputError
from timewarp.settings import DataSettings, Device, SettingsError

TINY = {"walkers": 6, "frames": 2, "warm_up": 4}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Charts from a very short walk: no law here depends on how good they are."""
    for name, value in {"CONFORMERS": 2, "WALKERS": 6, "WARM_UP": 4}.items():
        monkeypatch.setattr(building, name, value)


def asked(tmp_path, *sequences, **changes):
    return DataSettings(sequences=sequences, out=tmp_path / "out", device=Device.CPU, **TINY | changes)


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
