"""`timewarp adapt` and `sample --adapt`: a checkpoint that has learned one peptide, frozen before it samples."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from timewarp import assemble
from timewarp.assemble import peptide as building
from timewarp.assemble.adaptation import Adaptation, AdaptationConfig
from timewarp.assemble.conformations import Conformations, drawn, exchanged
from timewarp.assemble.energy import energy_of
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.peptide import Peptide
from timewarp.claim import DirectoryRefused
from timewarp.cli import execute
from timewarp.flow.internal import Internal
from timewarp.md.system import prepare, prepare_sequence, write_pdb
from timewarp.settings import AdaptSettings, SampleSettings, SettingsError
from timewarp.training.checkpoint import Checkpoint
from timewarp.training.fit import FitConfig

from .runs import INTERNAL

# the functions of the same names hide these modules
adapting, sampling = (import_module(f"timewarp.assemble.{name}") for name in ("adapt", "sample"))
MINUTES = 0.05
TINY = AdaptationConfig(
    walkers=16, kept=4, batch=8, own=8, draws=8, measures=2, fit=FitConfig(learning_rate=1e-2, warm_up=2, ema=10.0)
)
CONFIG = replace(INTERNAL, harmonics=6)
SMALL = {"CONFORMERS": 2, "WALKERS": 6, "ROUNDS": (4,)}


def silent(*_):
    pass


def never():
    return False


@pytest.fixture(scope="module", autouse=True)
def small():
    """A chart of few conformers, and an adaptation of few walkers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(building, name, value)
        patch.setattr(adapting, "CONFIG", TINY)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """GG, an untrained flow, and one with velocities."""
    folder = tmp_path_factory.mktemp("adapt")
    prepared = prepare_sequence("GG")
    write_pdb(prepared.topology, prepared.positions, folder / "GG.pdb")
    card = {"units": "nm, kT", "data": {"peptides": []}, "metrics": {}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, config in (("parent", CONFIG), ("coupled", replace(CONFIG, velocities=1))):
            own = {"kind": "internal", "config": asdict(config)}
            Checkpoint(Internal(config).state_dict(), card | own).save(folder / name)
    return folder


def asked(folder, out, **changes):
    given = {"pdb": folder / "GG.pdb", "out": out, "minutes": MINUTES, "checkpoint": str(folder / "parent.json")}
    return AdaptSettings(**given | changes)


def sampled(folder, out, steps, **changes):
    given = {"pdb": folder / "GG.pdb", "out": out, "steps": steps, "chains": 2, "width": 4, "seed": 3, "warm_up": 4}
    return SampleSettings(**given | {"checkpoint": str(folder / "parent.json")} | changes)


@pytest.fixture(scope="module")
def adapted(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "GG"
    return out, assemble.adapt(asked(folder, out), silent, never)


@pytest.fixture(scope="module")
def peptide(folder):
    energy, molecule, _ = energy_of(prepare(folder / "GG.pdb"), 310.0)
    return Peptide.of(molecule, potential=energy)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_leaves_an_ordinary_checkpoint_that_says_where_it_comes_from(folder, adapted):
    out, report = adapted
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == ["adapted.json", "adapted.safetensors"]
    checkpoint = Checkpoint.load(out / "adapted")
    facts = checkpoint.card["adaptation"]
    assert facts == json.loads(json.dumps(report["adaptation"]))
    assert (facts["peptide"], facts["temperature"], facts["seed"]) == ("GG", 310.0, 0)
    assert facts["parent"] == str(folder / "parent.json")
    assert facts["parent_weights"] == adapting.digest(Checkpoint.load(folder / "parent").tensors)
    assert facts["minutes"] > 0
    assert facts["steps"] > 0
    assert 0 < facts["acceptance"]["before"] <= facts["acceptance"]["after"] <= 1
    assert [row["steps"] for row in facts["trace"]][-1] == facts["steps"]
    assert isinstance(load_flow(checkpoint), Internal)
    assert "before" in report["message"]


def test_sample_takes_it_in_the_chart_that_it_was_adapted_in(folder, adapted, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sampling, "bound", lambda flow, peptide: seen.append((flow, peptide)) or bound(flow, peptide))
    path = adapted[0] / "adapted"
    report = assemble.sample(sampled(folder, tmp_path / "run", 5, checkpoint=f"{path}.json"), silent, never)
    assert (report["exact"], report["steps"]) == (True, 5)
    ((flow, peptide),) = seen
    checkpoint = Checkpoint.load(path)
    stored = {k: v for k, v in checkpoint.tensors.items() if k.startswith("chart.")}
    assert same({f"chart.{k}": v for k, v in peptide.chart.arrays().items()}, stored)
    assert same(flow.state_dict() | stored, dict(checkpoint.tensors))


def test_the_chart_is_not_taken_for_another_molecule(adapted, folder, tmp_path):
    checkpoint = Checkpoint.load(adapted[0] / "adapted")
    own = prepare(folder / "GG.pdb")
    molecule = energy_of(own, 310.0)[1]
    assert adapting.chart_of(checkpoint, own, molecule, 310.0) is not None
    assert adapting.chart_of(checkpoint, own, molecule, 350.0) is None
    assert adapting.chart_of(Checkpoint.load(folder / "parent"), own, molecule, 310.0) is None
    mirrored = replace(molecule, reference=molecule.reference * torch.tensor([1.0, 1.0, -1.0]))
    assert adapting.chart_of(checkpoint, own, mirrored, 310.0) is None
    other = prepare_sequence("AG")
    assert adapting.chart_of(checkpoint, other, energy_of(other, 310.0)[1], 310.0) is None


@pytest.mark.parametrize(
    ("rates", "kept"),
    [((0.5, 0.7, 0.6, 0.55), True), ((0.5, 0.7, 0.6, 0.65), False), ((0.5, 0.0, 0.0, 0.0), True)],
    ids=["worse", "better", "ruined"],
)
def test_the_parent_is_kept_where_nothing_improves(folder, peptide, monkeypatch, rates, kept):
    """The acceptance of the parent, of what was learned, and at the end of both again, which alone counts."""
    parent = load_flow(Checkpoint.load(folder / "parent"))
    told = iter(rates)
    made = Adaptation(peptide, parent, 1e6, replace(TINY, walk=1e-6, kept=1), 0, silent, lambda: made.fit.step >= 2)
    monkeypatch.setattr(made, "_rate", lambda: next(told))
    result = made()
    assert (result.before, result.after) == ((0.6, max(0.6, rates[3])) if rates[1] else (0.5, 0.5))
    assert same(result.flow.state_dict(), parent.state_dict()) == kept


def test_weights_that_are_ruined_are_not_kept(folder, peptide):
    parent = load_flow(Checkpoint.load(folder / "parent"))
    ruinous = replace(TINY, fit=FitConfig(learning_rate=1e3, warm_up=1, ema=1.0))
    result = Adaptation(peptide, parent, 0.5, ruinous, 0, silent, never)()
    assert result.steps > 0
    assert result.after == result.before > 0
    assert same(result.flow.state_dict(), parent.state_dict())


def test_what_is_learned_is_better(folder, peptide):
    """So many steps, whatever the machine: an untrained flow has much to learn."""
    parent = load_flow(Checkpoint.load(folder / "parent"))
    made = Adaptation(peptide, parent, 1e6, replace(TINY, walk=1e-6, walkers=64, kept=1), 0, silent, lambda: done())

    def done():
        return made.fit.step >= 200

    before = copy_of(parent)
    result = made()
    assert same(parent.state_dict(), before)
    rng = torch.Generator().manual_seed(1)
    gaps = []
    for flow in (parent, result.flow, made.averaged):
        proposal = bound(flow, peptide)
        new, _ = drawn(proposal, peptide, 200, rng)
        gaps.append(float((new.free - new.log_prob(flow, proposal)).std()))
    assert gaps[2] < gaps[0] - 0.1, gaps


def copy_of(flow):
    return {k: v.clone() for k, v in flow.state_dict().items()}


def test_conformations_are_judged_as_the_proposal_judges_them(folder, peptide):
    flow = load_flow(Checkpoint.load(folder / "parent"))
    proposal = bound(flow, peptide, warm=False)
    rng = torch.Generator().manual_seed(0)
    new, weight = drawn(proposal, peptide, 6, rng)
    log_prob = proposal(new.positions[:1]).log_prob(sampling.State.at(new.positions, 0, rng))
    expected = -peptide.potential(new.positions) - log_prob
    assert torch.allclose(weight, expected, atol=2e-3)
    assert torch.allclose(new.log_weight(new.log_prob(flow, proposal)), expected, atol=2e-3)
    again = Conformations.of(proposal, peptide, new.positions, rng)
    assert torch.allclose(again.target, new.target, atol=2e-3)
    assert (again.free - new.free).abs().median() < 1.5


def test_chains_that_go_on_by_draws_reach_the_target():
    """Draws from N(0, 2^2), the target N(1, 1): chains that start far off end with its mean and variance."""
    rng = torch.Generator().manual_seed(0)

    def at(x):
        target = 5 - 0.5 * (x - 1).square()  # known up to a constant, which must not matter
        return Conformations({"torsions": x[:, None]}, target, x, x[:, None, None].expand(-1, 1, 3))

    def weight(c):
        return c.target + 0.5 * (c.free / 2).square()

    pool = at(torch.full((4000,), 5.0)).joined()
    for _ in range(12):
        new = at(2 * torch.randn(4000, generator=rng))
        exchanged(pool, torch.arange(4000), weight(pool), new, weight(new), rng)
    assert abs(float(pool.free.mean()) - 1) < 0.06
    assert abs(float(pool.free.var()) - 1) < 0.1
    assert torch.equal(pool.parts["torsions"][:, 0], pool.free)


@pytest.fixture(scope="module")
def both(folder, tmp_path_factory):
    """A run of `sample --adapt`, the flow that it sampled with, and its directory as it was after six steps."""
    out, used = tmp_path_factory.mktemp("both") / "GG", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "bound", lambda flow, peptide: used.append(flow) or bound(flow, peptide))
        report = assemble.sample(sampled(folder, out, 6, adapt=MINUTES), silent, never)
    return out, report, used[-1]


def test_a_run_that_adapts_samples_with_what_it_froze(both, folder):
    out, report, flow = both
    frozen = Checkpoint.load(out / "adapted")
    weights = {k: v for k, v in frozen.tensors.items() if not k.startswith("chart.")}
    assert same(flow.state_dict(), weights)
    assert not any(p.requires_grad for p in flow.parameters())
    assert (report["exact"], report["steps"], report["frames"]) == (True, 6, 6)
    assert report["adapted_minutes"] == frozen.card["adaptation"]["minutes"]
    assert report["seconds"] > 60 * report["adapted_minutes"]
    assert f"--adapt {MINUTES}" in report["command"]
    assert "adapted_minutes" in json.loads((out / "report.json").read_text())


def test_a_resumed_run_goes_on_with_the_frozen_flow(both, folder, tmp_path, monkeypatch):
    def again(*_):
        raise AssertionError("it was adapted a second time")

    used = []
    monkeypatch.setattr(sampling, "adapted_to", again)
    monkeypatch.setattr(sampling, "bound", lambda flow, peptide: used.append(flow) or bound(flow, peptide))
    out = shutil.copytree(both[0], tmp_path / "GG")
    report = assemble.sample(sampled(folder, out, 9, adapt=MINUTES, resume=True), silent, never)
    assert (report["steps"], report["adapted_minutes"]) == (9, both[1]["adapted_minutes"])
    assert same(used[-1].state_dict(), both[2].state_dict())
    assert report["seconds"] > both[1]["seconds"]
    with pytest.raises(DirectoryRefused, match="was started with adapt"):
        assemble.sample(sampled(folder, out, 14, resume=True), silent, never)


def test_adapting_further_begins_with_what_was_learned(adapted, folder, tmp_path):
    out = shutil.copytree(adapted[0], tmp_path / "GG")
    with pytest.raises(DirectoryRefused, match="holds a run; continue it with --resume"):
        assemble.adapt(asked(folder, out), silent, never)
    earlier = Checkpoint.load(out / "adapted")
    assemble.adapt(asked(folder, out, resume=True), silent, lambda: True)  # stopped at once: nothing is lost
    later = Checkpoint.load(out / "adapted")
    assert same(dict(later.tensors), dict(earlier.tensors))
    assert later.card["adaptation"]["minutes"] > earlier.card["adaptation"]["minutes"]
    assert later.card["adaptation"]["parent"] == earlier.card["adaptation"]["parent"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("adapt a.pdb --minutes 0", "--minutes: expected more than 0, got 0.0"),
        ("adapt a.pdb --minutes nan", "--minutes: expected more than 0, got nan"),
        ("adapt a.pdb --minutes inf", "--minutes: expected more than 0, got inf"),
        ("adapt a.pdb --minutes soon", "Invalid value for '--minutes'"),
        ("adapt a.pdb --temperature 0", "--temperature: expected a positive number of kelvin, got 0.0"),
        ("adapt a.pdb --device cuda", "--device: expected cpu or auto for timewarp adapt, got cuda"),
        ("sample a.pdb --adapt -1", "--adapt: expected more than 0 minutes, got -1.0"),
        ("sample a.pdb --adapt 0", "--adapt: expected more than 0 minutes, got 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, complaint, tmp_path, capsys):
    assert execute([*arguments.split(), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert (len(said.splitlines()), (tmp_path / "out").exists()) == (1, False)


def test_a_flow_with_velocities_is_refused(folder, tmp_path):
    with pytest.raises(SettingsError, match=r"expected an internal flow without velocities to adapt, got .*coupled"):
        assemble.adapt(asked(folder, tmp_path / "out", checkpoint=str(folder / "coupled.json")), silent, never)


def test_the_command_keeps_what_was_learned_when_it_is_stopped(folder, tmp_path):
    code = f"import timewarp.assemble.peptide as p; vars(p).update({SMALL}); from timewarp.cli import main; main()"
    words = ["adapt", str(folder / "GG.pdb"), "--checkpoint", str(folder / "parent.json"), "--minutes", "60"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--out", "run"],
        cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "run" / ".lock").exists():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "stopped when asked, and saved; --resume continues" in out
    assert "Traceback" not in err
    facts = Checkpoint.load(tmp_path / "run" / "adapted").card["adaptation"]
    assert facts["asked_minutes"] == 60
    assert 0 < facts["minutes"] < 10
