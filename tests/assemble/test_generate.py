"""Laws of training sets: a shard appears whole or not at all, alike however the run went, and is read as written."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file

from timewarp import units
from timewarp.assemble import peptide as building
from timewarp.assemble.frames import Frames, Minibatch
from timewarp.assemble.generate import Recipe, Shard, generate, seed_of
from timewarp.energy import Potential
from timewarp.flow.chart import InternalChart
from timewarp.flow.growth import CHANNELS
from timewarp.md.export import export
from timewarp.md.system import prepare_sequence
from timewarp.settings import SettingsError
from timewarp.state import Molecule

QUICK = Recipe(walkers=6, warm_up=6, frames=2, every=0.5, temperature=320.0)
NAMES = ("GG", "AG")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Charts from a very short walk: no law here depends on how good they are."""
    for name, value in {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}.items():
        monkeypatch.setattr(building, name, value)


@cache
def molecule(sequence) -> Molecule:
    prepared = prepare_sequence(sequence)
    return export(prepared.topology, prepared.system, prepared.positions)


def make(out, names=NAMES, recipe=QUICK, seed=0, **how):
    lines = []
    pairs = [(name, lambda name=name: molecule(name)) for name in names]
    made = generate(pairs, out, recipe, seed, lines.append, compiled=False, **how)
    return made, lines


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}.items():
            patch.setattr(building, name, value)
        made, lines = make(out)
    assert made == 2 * 6 * 2
    assert [line.split(":")[0] for line in lines] == list(NAMES)
    return out


def same(one, two):
    a, b = load_file(one), load_file(two)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_shard_whose_rings_have_no_phase_is_refused(tmp_path):
    """As those were made before a pucker was one of the torsions."""
    make(tmp_path, ("PG",))
    path = tmp_path / "PG.safetensors"
    tensors, facts = load_file(path), Shard.read(path).facts
    del tensors["chart.closing"]
    save_file(tensors, path, metadata={"facts": json.dumps(facts)})
    with pytest.raises(SettingsError, match="another version"):
        Shard.read(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_is_read_as_it_was_written(shards, name):
    shard, own = Shard.read(shards / f"{name}.safetensors"), molecule(name)
    assert shard.sequence == name
    written, read = own.arrays(), shard.molecule.arrays()
    assert written.keys() == read.keys()
    assert all(torch.equal(written[k], read[k]) for k in written)
    assert shard.positions.shape == (12, own.atoms, 3)
    assert shard.facts["recipe"] == {"walkers": 6, "warm_up": 6, "frames": 2, "every": 0.5, "temperature": 320.0}
    assert 0 <= shard.facts["acceptance"] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_positions_and_chart_coordinates_are_the_same_frames(shards, name):
    shard = Shard.read(shards / f"{name}.safetensors")
    chart = InternalChart(shard.molecule, whitening=shard.whitening)
    torsions, stiff, _ = chart.forward(shard.positions)
    turn = torch.remainder(torsions - shard.torsions + torch.pi, 2 * torch.pi) - torch.pi
    assert turn.abs().max() < 1e-4
    built = building.Peptide.of(shard.molecule, 320.0, whitening=shard.whitening)
    basin = built.stiff.at(shard.torsions)
    assert (built.stiff.push(basin, shard.noise)[0] - stiff).abs().median() < 1e-4
    assert 0.8 < shard.noise.std() < 1.3


def test_the_energies_told_are_those_of_the_frames(shards):
    shard = Shard.read(shards / "GG.safetensors")
    energy = Potential(shard.molecule, 320.0)(shard.positions)
    halves = shard.facts["mean_energy_of_halves"]
    assert halves == pytest.approx([energy[:6].mean().item(), energy[6:].mean().item()], abs=1e-2)
    assert units.kT(320.0) != units.kT(310.0)  # the recipe's temperature is not the default


def test_what_exists_is_left_and_what_is_missing_is_made_alike(shards, tmp_path):
    """The second peptide alone, beside a file that stands for the first."""
    (tmp_path / "GG.safetensors").write_bytes(b"mine")
    made, lines = make(tmp_path)
    assert made == 12
    assert [line.split(":")[0] for line in lines] == ["AG"]
    assert (tmp_path / "GG.safetensors").read_bytes() == b"mine"
    assert same(tmp_path / "AG.safetensors", shards / "AG.safetensors")
    assert make(tmp_path) == (0, [])


def test_another_seed_gives_other_frames(shards, tmp_path):
    make(tmp_path, ("GG",), seed=1)
    assert not same(tmp_path / "GG.safetensors", shards / "GG.safetensors")


def test_every_peptide_has_a_seed_of_its_own():
    names = ("GG", "ACE-GLY-GLY-GLY-NME", "ACE-GLY-GLY-GLY-NH2")  # told apart to their end
    seeds = {seed_of(seed, name) for seed in range(3) for name in names}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_it_stops_between_peptides(tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 1

    made, _ = make(tmp_path, stop=stop)
    assert made == 12
    assert [p.name for p in tmp_path.iterdir()] == ["GG.safetensors"]


def test_one_frame_a_walker_is_enough(tmp_path):
    made, _ = make(tmp_path, ("GG",), Recipe(walkers=3, warm_up=2, frames=1, every=0.1))
    assert made == 3
    halves = Shard.read(tmp_path / "GG.safetensors").facts["mean_energy_of_halves"]
    assert halves[0] == halves[1]


RUN = """
    import sys, time
    from pathlib import Path
    from timewarp import atomic
    from timewarp.assemble import generate as module, peptide
    from timewarp.assemble.generate import Recipe, generate
    from timewarp.md.export import export
    from timewarp.md.system import prepare_sequence

    peptide.CONFORMERS, peptide.WALKERS, peptide.ROUNDS = 2, 6, (4,)
    out, moment = Path(sys.argv[1]), sys.argv[2]

    def wait(*_):
        print("writing", flush=True)
        time.sleep(60)  # for as long as it takes to be killed

    def slowly(path, content):
        if "AG" not in path.name:
            return atomic.write_atomically(path, content)
        if moment == "half written":
            path.with_name(f".{path.name}.tmp").write_bytes(content[: len(content) // 2])
            wait()
        if moment == "not yet in place":
            Path.replace = wait
        atomic.write_atomically(path, content)
        wait()

    module.write_atomically = slowly

    def load(name):
        prepared = prepare_sequence(name)
        return export(prepared.topology, prepared.system, prepared.positions)

    recipe = Recipe(walkers=6, warm_up=6, frames=2, every=0.5, temperature=320.0)
    names = [(name, lambda name=name: load(name)) for name in ("GG", "AG")]
    generate(names, out, recipe, 0, lambda line: None, compiled=False)
"""


@pytest.mark.parametrize("moment", ["half written", "not yet in place", "in place"])
def test_a_killed_run_goes_on_to_the_same_frames(shards, tmp_path, moment):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path), moment], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "writing\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    whole = moment == "in place"
    # nothing half written is read
    assert len([p.name for p in tmp_path.glob("*.safetensors")]) == 1 + whole
    assert len([p for p in tmp_path.iterdir() if p.suffix == ".tmp"]) == (not whole)
    before = (tmp_path / "GG.safetensors").stat().st_mtime_ns
    made, _ = make(tmp_path)
    assert made == (0 if whole else 12)
    assert (tmp_path / "GG.safetensors").stat().st_mtime_ns == before
    for name in NAMES:
        assert same(tmp_path / f"{name}.safetensors", shards / f"{name}.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["AG.safetensors", "GG.safetensors"]


def test_half_of_the_walkers_begin_at_the_prepared_structure(tmp_path):
    """Without a warm-up and with few moves they are still there; the others are anywhere."""
    make(tmp_path, ("GG",), Recipe(walkers=20, warm_up=0, frames=1, every=0.0))
    shard = Shard.read(tmp_path / "GG.safetensors")
    chart = InternalChart(shard.molecule, whitening=shard.whitening)
    rest = chart.forward(shard.molecule.reference.float()[None])[0]
    away = (torch.remainder(shard.torsions - rest + torch.pi, 2 * torch.pi) - torch.pi).abs()
    assert ((away < 1e-3).float().mean(1)[:10] >= 0.5).all()
    assert ((away < 1e-3).float().mean(1)[10:] < 0.5).all()


def test_tempered_walkers_are_the_coldest_of_their_ladders(tmp_path):
    recipe = Recipe(walkers=4, warm_up=9, frames=3, every=1.0, tempering=True)
    assert make(tmp_path, ("GG",), recipe)[0] == 12
    shard = Shard.read(tmp_path / "GG.safetensors")
    heats, swaps = shard.facts["ladder"]["heats"], shard.facts["ladder"]["swaps"]
    assert (heats[0], heats[-1]) == (1.0, pytest.approx(10.0))
    assert len(swaps) == len(heats) - 1
    assert shard.facts["recipe"]["tempering"] is True
    chart = InternalChart(shard.molecule, whitening=shard.whitening)
    torsions = chart.forward(shard.positions)[0]
    assert (torch.remainder(torsions - shard.torsions + torch.pi, 2 * torch.pi) - torch.pi).abs().max() < 1e-4
    assert {"halves", "starts", "rhat", "ess", "agree"} <= shard.facts["mixing"].keys()


def test_frames_are_drawn_padded(shards):
    pool = [Frames.read(shards / f"{name}.safetensors") for name in NAMES]
    batch = Minibatch.draw(pool, 5, 4, torch.Generator().manual_seed(0))
    assert [len(f) for f in pool] == [12, 12]
    torsions, curves, noise = batch.frames
    assert (batch.count, batch.free.shape) == (4, (2, 6))
    assert torsions.shape == (2, 6, max(f.torsions.shape[1] for f in pool))
    assert noise.shape == (2, 6, 20, 3)
    assert curves.shape == (*torsions.shape, CHANNELS, 36)
    assert batch.tokens.real.sum(1).sort().values.tolist() == [17, 20]
    for k in range(2):
        own = next(f for f in pool if len(f.tokens.real) == batch.tokens.real[k].sum())
        row = (own.noise[:, None] == noise[k][None, :, : own.noise.shape[1]]).all(-1).all(-1)
        assert row.any(0).all()  # each is one of the molecule's frames
        alike = (torsions[k][:, None, : own.torsions.shape[1]] == own.torsions).all(-1)
        assert (alike | ~row.T).all()  # and the same one
