"""The kernel for GPUs against the torch function that it stands for; without a GPU in Triton's interpreter."""

import importlib.util
import os
from functools import cache

import pytest
import torch

from timewarp import units
from timewarp.energy import block, pairs
from timewarp.energy.tables import tables
from timewarp.md.export import export

from .conftest import built, distorted, system_of

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or (DEVICE == "cpu" and not INTERPRETED),
    reason="needs Triton, and a GPU or TRITON_INTERPRET=1",
)
# kJ/mol, and of the root mean square of the gradient; a GPU's own logarithms and roots are less exact
ENERGY, SLOPE = (2e-3, 1e-5) if DEVICE == "cpu" else (2e-2, 5e-5)
OBC1 = ("amber14/protein.ff14SB.xml", "implicit/obc1.xml")
OBC2 = ("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
HCT = ("amber14/protein.ff14SB.xml", "implicit/hct.xml")
GBN2 = ("amber14/protein.ff14SB.xml", "implicit/gbn2.xml")
VACUUM = ("amber14/protein.ff14SB.xml",)
MOLECULES = {
    "ACE-ALA-NME": (OBC1, {}),  # 22 atoms
    "ALA-GLY": (OBC1, {}),
    "ACE-SER-NME": (VACUUM, {}),
    "ACE-GLY-NME": (OBC2, {"cutoff": 0.6}),
    "SER-GLY": (HCT, {}),
    "ALA-SER-PHE-LYS": (OBC1, {}),
    "ACE-VAL-NH2": (VACUUM, {"cutoff": 0.5}),
}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.*")  # numpy on 0/0 of what is masked


if importlib.util.find_spec("triton") is not None:
    import triton
    import triton.language as tl

    from timewarp.energy.terms import angle_of

    @triton.jit
    def angles_of(sine, cosine, out, SIZE: tl.constexpr):
        at = tl.arange(0, SIZE)
        tl.store(out + at, angle_of(tl.load(sine + at), tl.load(cosine + at)))


@cache
def molecule(sequence, files, **options):
    """Of a sequence and force-field files: the molecule, its positions and its tables in both precisions."""
    prepared = built(sequence)
    found = export(prepared.topology, system_of(sequence, *files, **options), prepared.positions)
    double, single = (
        tables(found.forcefield, units.COULOMB, dtype, device)
        for dtype, device in ((torch.float64, "cpu"), (torch.float32, DEVICE))
    )
    return prepared.positions, double, single


def made(sequence):
    files, options = MOLECULES[sequence]
    return molecule(sequence, files, **options)


def test_what_the_kernel_takes(monkeypatch):
    x, double, single = made("ACE-ALA-NME")
    x = torch.as_tensor(x, dtype=torch.float32, device=DEVICE)[None]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(block, "_installed", lambda: True)
    assert block.apt(x, single)
    assert not block.apt(x.double(), double)
    assert not block.apt(x, molecule("ACE-ALA-NME", GBN2)[2])
    assert not block.apt(x, molecule("ACE-ALA-NME", OBC1, implicitSolventKappa=0.7)[2])
    assert not block.apt(x.new_zeros(1, block.WIDEST + 1, 3), single)
    monkeypatch.setattr(block, "_installed", lambda: False)
    assert not block.apt(x, single)


def test_the_matrices_have_each_pair_from_both_sides():
    for sequence in ("ACE-ALA-NME", "ALA-GLY"):
        _, _, t = made(sequence)
        matrices = block.packed(t).matrices.cpu()
        atoms, pair = t.partners.shape[1], t.pairs[..., 0].cpu()
        torch.testing.assert_close(matrices, matrices.mT)
        assert not matrices.diagonal(dim1=1, dim2=2).any()
        assert not matrices[:, atoms:].any()
        for mine, column in zip(matrices[:5].double(), (2, 5, 6, 0, 1)):
            torch.testing.assert_close(mine.sum(), 2 * pair[column].double().sum())
        assert block.packed(t) is block.packed(t)


@needs_triton
@pytest.mark.parametrize("sequence", MOLECULES)
def test_it_is_as_exact_as_the_torch_function(sequence):
    start, double, single = made(sequence)
    x = torch.cat([distorted(start, width, 1) for width in (0.003, 0.02)]).float()
    energy, gradient, _ = pairs.evaluate(x.double(), double, True)
    torch32 = pairs.evaluate(x.to(DEVICE), single, True)
    mine = block.evaluate(x.to(DEVICE), single, True)
    alone = block.evaluate(x.to(DEVICE), single, False)
    assert energy.isfinite().all()
    assert alone.gradient is None
    torch.testing.assert_close(alone.energy, mine.energy, rtol=1e-6, atol=1e-3)
    size = gradient.square().mean((1, 2)).sqrt()
    for at, found in enumerate(zip(mine.energy, torch32.energy)):
        error, other = (float((e.cpu() - energy[at]).abs()) for e in found)
        assert error < max(ENERGY, 1e-6 * float(energy[at].abs()), 3 * other)
    for at, found in enumerate(zip(mine.gradient, torch32.gradient)):
        error, other = (float((g.cpu() - gradient[at]).abs().max() / size[at]) for g in found)
        assert error < max(SLOPE, 3 * other)


@needs_triton
@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "ACE-SER-NME"])
@pytest.mark.parametrize("want", [True, False])
def test_what_is_not_finite_stays_alone(sequence, want):
    start, _, single = made(sequence)
    x = distorted(start, 0.003, 4).float().to(DEVICE)
    fine = block.evaluate(x, single, want)
    bad = x.clone()
    bad[1, 3] = bad[1, 9]
    bad[2, 5, 1] = torch.nan
    mixed = block.evaluate(bad, single, want)
    assert (mixed.energy[1:3] == torch.inf).all()
    assert torch.equal(mixed.energy[[0, 3]], fine.energy[[0, 3]])
    if want:
        assert not mixed.gradient[1:3].any()
        assert torch.equal(mixed.gradient[[0, 3]], fine.gradient[[0, 3]])


@needs_triton
def test_no_configuration_gives_none():
    start, _, single = made("ACE-ALA-NME")
    found = block.evaluate(torch.zeros(0, len(start), 3, device=DEVICE), single, True)
    assert found.energy.shape == (0,)
    assert found.gradient.shape == (0, len(start), 3)


@needs_triton
def test_angles_of_all_sizes():
    small = torch.logspace(-7, -1, 64, dtype=torch.float64)
    theta = torch.cat([torch.linspace(1e-3, 3.1405, 4096 - 128, dtype=torch.float64), small, torch.pi - small])
    sine, cosine = (0.013 * theta.sin()).float(), (0.013 * theta.cos()).float()
    out = torch.empty(4096, device=DEVICE)
    angles_of[(1,)](sine.to(DEVICE), cosine.to(DEVICE), out, SIZE=4096)
    assert (out.cpu() - torch.atan2(sine.double(), cosine.double())).abs().max() < 3e-7
