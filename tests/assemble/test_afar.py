"""A GPU that draws for chains on the CPU, and tempering there: a pretended GPU, and a real one where there is one."""

from collections import Counter
from importlib import import_module
from types import SimpleNamespace

import mdtraj
import numpy as np
import pytest
import torch
from pretend import pretended_gpu
from torch.utils._python_dispatch import TorchDispatchMode

from timewarp import assemble
from timewarp.assemble import afar, reference
from timewarp.assemble import peptide as building
from timewarp.assemble.afar import Afar
from timewarp.assemble.data import loader
from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.kernels import flow_kernel
from timewarp.assemble.peptide import Peptide
from timewarp.assemble.reference import prepared, reference_ensemble
from timewarp.energy import Potential
from timewarp.kernel import run
from timewarp.mcmc.captured import Captured
from timewarp.mcmc.dynamics import Langevin
from timewarp.resources import checkpoint_path, peptide_path
from timewarp.settings import Device, SampleSettings
from timewarp.state import State
from timewarp.training.checkpoint import Checkpoint

sampling = import_module("timewarp.assemble.sample")  # the package has a function of that name
CHECKPOINT = Checkpoint.load(checkpoint_path("2aa").with_suffix(""))
real = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def made(name):
    with pytest.MonkeyPatch.context() as patch:
        for what, value in {"CONFORMERS": 4, "WALKERS": 8, "ROUNDS": (8,)}.items():
            patch.setattr(building, what, value)
        return Peptide.of(loader(name)(), 310.0)


@pytest.fixture(scope="module")
def peptide():
    """One with a ring, which has code of its own."""
    return made("AP")


@pytest.fixture
def gpu(monkeypatch):
    """A pretended one, of 1 TB."""
    with pretended_gpu():
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**40))
        yield


def far(peptide):
    found = Afar.of(peptide, CHECKPOINT, 0, 2)
    assert found is not None
    return found


def test_what_a_gpu_draws_is_what_a_cpu_draws(peptide, gpu):
    here = flow_kernel(peptide, bound(load_flow(CHECKPOINT), peptide), 0, 100, 2)
    (there,), expected = far(peptide).drawn(here, [(6, 11)]), here.draws(6, 11)
    assert there.asked == expected.asked > 0
    for one, other in zip(there.parts, expected.parts, strict=True):
        assert type(one) is torch.Tensor  # on the CPU
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-3)


def test_a_gpu_draws_as_many_at_once_as_it_has_room_for(monkeypatch):
    for total, most in ((2**40, afar.MOST // 4), (2**33, afar.MOST // 4), (2**20, 1)):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda _, total=total: SimpleNamespace(total_memory=total)
        )
        assert 1 <= afar.together(60, 4) <= most
    assert afar.together(20, 4) >= afar.together(60, 4)


def test_the_flow_gets_more_of_the_steps_and_no_weight_is_lost():
    weights = [0.5, 0.2, 0.2, 0.1]
    found = Afar.favoured(weights)
    assert sum(found) == pytest.approx(1.0)
    assert found[0] / found[1] == pytest.approx(afar.FAVOUR * weights[0] / weights[1])
    assert found[1] / found[3] == pytest.approx(2.0)
    assert Afar.favoured([]) == []


@pytest.fixture
def stand_in(monkeypatch):
    """In place of a GPU a kernel here, for what `sample` makes of its draws."""

    def of(peptide, checkpoint, stages, particles):
        return Afar(flow_kernel(peptide, bound(load_flow(checkpoint), peptide), stages, 12, particles), 5, 12)

    known = sampling.energy_of
    monkeypatch.setattr(Afar, "of", of)
    monkeypatch.setattr(sampling, "energy_of", lambda prepared, temperature, device: known(prepared, temperature))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_sample_with_a_gpu_goes_on_where_it_was_stopped(tmp_path, stand_in, few_conformers):
    def sampled(name, steps, resume=False):
        settings = SampleSettings(
            pdb=peptide_path("AA"), out=tmp_path / name, steps=steps, chains=2, width=4, seed=3, warm_up=8,
            particles=2, device=Device.CUDA, resume=resume,
        )  # fmt: skip
        return assemble.sample(settings, lambda *_: None, lambda: False)

    whole = sampled("whole", 20)
    sampled("parts", 9)
    parts = sampled("parts", 20, resume=True)
    assert whole["exact"]
    assert whole["acceptance"] == parts["acceptance"] > 0.2
    weights = whole["warm_up"]["weights"]
    assert weights["flow"] > afar.FAVOUR * weights["regrowth"]
    for k in range(2):
        one, other = (
            mdtraj.load(str(tmp_path / name / f"chain-{k:03}.dcd"), top=str(tmp_path / name / "topology.pdb")).xyz
            for name in ("whole", "parts")
        )
        assert len(one) == 20
        assert (one == other).all()


class Waits(TorchDispatchMode):
    """Counts operations that a GPU's recording refuses: those by which the host looks at numbers or hands some over."""

    LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default")

    def __init__(self):
        super().__init__()
        self.found, self.seen = Counter(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found, name = func(*args, **(kwargs or {})), str(func)
        tensors = [t for t in (*args, found) if isinstance(t, torch.Tensor)]
        index = [t for a in args if isinstance(a, list | tuple) for t in a if isinstance(t, torch.Tensor)]
        crosses = "copy" in name and len({t.device.type for t in tensors}) > 1
        masked = "index" in name and any(t.dtype == torch.bool or t.device.type == "cpu" for t in index)
        self.seen += 1
        if crosses or masked or any(look in name for look in self.LOOKS):
            self.found[name] += 1
        return found


def test_what_is_recorded_looks_at_no_number(peptide, gpu, monkeypatch):
    for name in ("WARM_UP", "PILOT", "BETWEEN", "LEAPS"):
        monkeypatch.setattr(reference, name, 2)
    rng = torch.Generator("cuda").manual_seed(1)
    tempering, state = prepared(peptide.on("cuda"), 4, rng)
    with Waits() as waits:
        after, _ = tempering.step(state, rng)
    assert not waits.found
    assert waits.seen > 500
    assert after.energy.device.type == "cuda"
    langevin = Langevin.of(peptide.molecule, peptide.potential, 310.0, steps=3).on("cuda")
    phase = langevin.init(State.at(after.cold.positions, 3, rng))
    with Waits() as waits:
        phase, _ = langevin.step(phase, rng)
    assert not waits.found
    assert waits.seen > 50
    with Waits() as waits:
        assert phase.energy.isfinite().all()  # as a test of the test
    assert waits.found


def test_tempering_on_a_gpu_has_the_right_energies(peptide, gpu, monkeypatch):
    for name in ("WARM_UP", "PILOT", "BETWEEN", "LEAPS"):
        monkeypatch.setattr(reference, name, 2)
    monkeypatch.setattr(
        reference, "stepping", lambda kernel, state, rng: lambda s, n: (a for a, _ in run(kernel, s, n, rng))
    )
    found = reference_ensemble(peptide.on("cuda"), 8, seed=1, seconds=1e-3, ladders=4)
    assert found.positions.device.type == found.torsions.device.type == "cpu"
    assert (Potential(peptide.molecule)(found.positions) - found.energy).abs().max() < 1e-2


@real
def test_recorded_steps_are_those_of_the_kernel():
    peptide = made("GG")
    rng = torch.Generator("cuda").manual_seed(1)
    langevin = Langevin.of(peptide.molecule, peptide.potential, 310.0, steps=5, friction=0.0).on("cuda")
    start = peptide.molecule.reference.float().cuda().repeat(16, 1, 1)
    phase = langevin.init(State.at(start, 3, rng))
    captured = Captured(langevin, phase, rng, 2)
    captured()
    *_, (after, _) = run(langevin, phase, 2, rng)
    torch.testing.assert_close(captured.state.positions, after.positions, rtol=0, atol=1e-4)


@real
def test_a_gpu_tempers_to_the_law_of_a_cpu():
    peptide = made("GG")
    here = reference_ensemble(peptide, 4000, seed=1, ladders=32)
    there = reference_ensemble(peptide.on("cuda"), 4000, seed=1, ladders=128)
    error = np.sqrt(here.energy.var() / here.facts["ess"] + there.energy.var() / there.facts["ess"])
    assert abs(here.energy.mean() - there.energy.mean()) < 5 * error
