"""Laws of the batched potential: its gradient, its batches, its symmetries, and what happens at bad configurations."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from timewarp.energy import Potential, compiled
from timewarp.energy.tables import Pairs, Spheres, tables
from timewarp.kernel import Energy, slope
from timewarp.units import kT

from .conftest import distorted


@pytest.fixture(scope="module")
def potential(peptide):
    return Potential(peptide[1], 310.0, dtype=torch.float64)


def moved(x, seed=0):
    """The same shapes, rotated and shifted."""
    rng = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=x.dtype))
    if torch.det(turn) < 0:
        turn = -turn
    return x @ turn.T + torch.randn(3, generator=rng, dtype=x.dtype)


def test_it_is_an_energy_in_units_of_kt(peptide, potential):
    assert isinstance(potential, Energy)
    x = distorted(peptide[0].positions, 0.005, 2)
    for temperature in (310.0, 500.0):
        hot = Potential(peptide[1], temperature, dtype=torch.float64)
        torch.testing.assert_close(hot(x), potential.kilojoules(x)[0] / kT(temperature))


def test_gradient_is_that_of_finite_differences(peptide, potential):
    x = distorted(peptide[0].positions, 0.005, 1)
    _, gradient = potential.kilojoules(x, gradient=True)
    step = 1e-5
    nudges = step * torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x[0].shape)
    numeric = (potential.kilojoules(x + nudges)[0] - potential.kilojoules(x - nudges)[0]) / (2 * step)
    torch.testing.assert_close(gradient.flatten(), numeric, rtol=1e-6, atol=1e-4)


def test_backward_is_the_gradient_over_kt_weighted(peptide, potential):
    x = distorted(peptide[0].positions, 0.005, 3).requires_grad_()
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=x.dtype)
    (found,) = torch.autograd.grad((weight * potential(x)).sum(), x)
    _, gradient = potential.kilojoules(x.detach(), gradient=True)
    torch.testing.assert_close(found, weight[:, None, None] * gradient / potential.kT)


def test_the_slope_is_what_autograd_gives(peptide, potential):
    """Also of a configuration that has none, and by `kernel.slope` of an energy that knows only its value."""
    x = broken(distorted(peptide[0].positions, 0.005, 1))
    energy, gradient = potential.slope(x)
    value, by_autograd = slope(lambda y: potential(y), x)
    assert torch.equal(energy, value)
    torch.testing.assert_close(gradient, by_autograd, rtol=1e-12, atol=1e-12)
    assert torch.equal(slope(potential, x)[1], gradient)
    with pytest.raises(ValueError, match="torch can differentiate"):
        slope(lambda y: y.detach().sum((1, 2)), x)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (2, 3)])
def test_a_batch_is_its_configurations(peptide, shape):
    count = math.prod(shape)
    x = distorted(peptide[0].positions, 0.005, count)
    rows = peptide[1].atoms * (peptide[1].atoms // 2)
    small = Potential(peptide[1], dtype=torch.float64, memory=3 * 8 * rows)  # 3 at a time
    energy, gradient = small.kilojoules(x.reshape(*shape, peptide[1].atoms, 3), gradient=True)
    assert (energy.shape, gradient.shape) == (torch.Size(shape), torch.Size((*shape, peptide[1].atoms, 3)))
    assert small.evaluations == count
    for i, one in enumerate(x):
        alone, slope = small.kilojoules(one, gradient=True)
        torch.testing.assert_close(energy.flatten()[i], alone)
        torch.testing.assert_close(gradient.reshape(-1, *one.shape)[i], slope)


def test_moving_the_molecule_turns_the_gradient_and_keeps_the_energy(peptide, potential):
    x = distorted(peptide[0].positions, 0.005, 1)[0]
    energy, gradient = potential.kilojoules(x, gradient=True)
    there, turned = potential.kilojoules(moved(x), gradient=True)
    torch.testing.assert_close(there, energy)
    torch.testing.assert_close(turned.norm(dim=-1), gradient.norm(dim=-1))
    torch.testing.assert_close(gradient.sum(0), torch.zeros(3, dtype=x.dtype), atol=1e-8, rtol=0)


def test_a_torsion_has_a_sign(peptide):
    forcefield = peptide[1].forcefield
    skew = replace(forcefield, torsion_phase=forcefield.torsion_phase + 0.4)
    x = distorted(peptide[0].positions, 0.005, 1)
    mirrored = x * torch.tensor([-1.0, 1.0, 1.0], dtype=x.dtype)
    energies = {}
    for name, known in {"even": forcefield, "skew": skew}.items():
        potential = Potential(replace(peptide[1], forcefield=known), dtype=torch.float64)
        energies[name] = float((potential(mirrored) - potential(x)).abs())
    assert energies["even"] < 1e-9  # phases of 0 and pi cannot tell the hands apart
    assert energies["skew"] > 1e-2


def test_permuting_atoms_permutes_the_gradient(peptide, potential):
    x = distorted(peptide[0].positions, 0.005, 2)
    order = torch.randperm(peptide[1].atoms, generator=torch.Generator().manual_seed(1))
    other = Potential(peptide[1].permuted(order), dtype=torch.float64)
    energy, gradient = potential.kilojoules(x, gradient=True)
    same, permuted = other.kilojoules(x[:, order], gradient=True)
    torch.testing.assert_close(same, energy)
    torch.testing.assert_close(permuted, gradient[:, order])


def broken(x):
    """Four configurations, of which 1 has a NaN, 2 an infinity, and 3 two atoms on one place."""
    x = x.repeat(4, 1, 1)
    x[1, 0, 0], x[2, 3, 1], x[3, 5] = torch.nan, torch.inf, x[3, 6]
    return x


def test_a_bad_configuration_is_infinite_alone(peptide, potential):
    x = broken(distorted(peptide[0].positions, 0.0, 1))
    energy, gradient = potential.kilojoules(x, gradient=True)
    good, slope = potential.kilojoules(x[0], gradient=True)
    assert energy[1:].tolist() == [torch.inf] * 3
    torch.testing.assert_close(energy[0], good)
    torch.testing.assert_close(gradient[0], slope)
    assert (gradient[1:] == 0).all()


def test_a_bad_configuration_does_not_poison_the_backward_pass(peptide, potential):
    x = broken(distorted(peptide[0].positions, 0.0, 1)).requires_grad_()
    weight = potential(x).neg().exp()  # 0 where the energy is infinite
    (found,) = torch.autograd.grad(potential(x)[0] + (weight * potential(x)).nan_to_num(0.0)[1:].sum(), x)
    assert found.isfinite().all()
    assert (found[0] != 0).any()


@pytest.mark.parametrize("atoms", [1, 2, 3, 8, 9])
def test_the_rows_of_the_tables_are_the_pairs_each_once(peptide, atoms):
    kept = torch.arange(atoms)
    forcefield = peptide[1].forcefield
    inside = {
        name: getattr(forcefield, name)[(getattr(forcefield, name.split("_")[0] + "_index") < atoms).all(1)]
        for name in forcefield.__dataclass_fields__
        if name.split("_")[0] in ("bond", "angle", "torsion", "exception")
    }
    part = replace(forcefield.permuted(torch.arange(peptide[1].atoms)), **inside)
    for name in ("charge", "sigma", "epsilon"):
        inside[name] = getattr(part, name)[kept]
    born = forcefield.born
    born = replace(born, **{name: getattr(born, name)[kept] for name in ("radius", "scaled", "charge")})
    t = tables(replace(part, born=born, **inside), 1.0, torch.float64, "cpu")
    met = [tuple(sorted((i, int(p)))) for i in range(atoms) for p in t.partners[:, i]]
    assert sorted(met) == sorted(2 * [(i, j) for i in range(atoms) for j in range(i + 1, atoms)])
    for i in range(atoms):
        for partner, row, own, other in zip(*(x[:, i].tolist() for x in (t.partners, t.shared, t.ordered, t.reverse))):
            assert sorted(t.ends[:, row].tolist()) == sorted((i, partner))
            first = int(t.ends[0, row]) == i
            rows = t.ends.shape[1]
            assert (own, other) == ((row, row + rows) if first else (row + rows, row))
    unused = sorted(set(range(t.ends.shape[1])) - set(t.shared.flatten().tolist()))
    assert len(unused) == (atoms // 2 if atoms % 2 == 0 else 0)
    assert not Pairs(*t.pairs).charge[unused].any()
    assert not Spheres(*t.born.pairs).charge[unused].any()


def test_single_precision_is_that_of_double(peptide):
    x = distorted(peptide[0].positions, 0.005, 8).float()
    single, double = (Potential(peptide[1], dtype=kind).kilojoules(x, True) for kind in (torch.float32, torch.float64))
    torch.testing.assert_close(single[0].double(), double[0], rtol=0, atol=2e-3)
    torch.testing.assert_close(single[1].double(), double[1], rtol=0, atol=5e-2)


WITHOUT = """
import sys, warnings
import torch
from timewarp.energy import Potential
from timewarp.state import Molecule
from safetensors.torch import load_file

flat = load_file(sys.argv[1])
x = flat.pop("x")
molecule = Molecule.from_arrays(flat)
fused = Potential(molecule, compiled=True)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = [fused.kilojoules(x, True) for _ in range(2)]
    print(len([w for w in said if "could not be compiled" in str(w.message)]))
plain = Potential(molecule).kilojoules(x, True)
print(all(torch.equal(a, b) for pair in found for a, b in zip(pair, plain)))
"""


def test_without_a_compiler_it_computes_the_same_and_says_so_once(peptide, tmp_path):
    x = distorted(peptide[0].positions, 0.003, 2).float()
    flat = {name: value.contiguous() for name, value in peptide[1].arrays().items()}
    save_file(flat | {"x": x}, tmp_path / "molecule.safetensors")
    none = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "molecule.safetensors")],
        env=os.environ | none, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.split() == ["1", "True"], found.stderr


def test_where_compiling_fails_the_plain_function_computes(peptide, monkeypatch):
    def fails(*arguments):
        raise NotImplementedError("no such processor\nand more")

    monkeypatch.setattr(compiled, "_function", lambda *kind: fails)
    monkeypatch.setattr(compiled, "_failed", [])
    x = distorted(peptide[0].positions, 0.003, 1)
    with pytest.warns(UserWarning, match="could not be compiled: NotImplementedError: no such processor$"):
        found = Potential(peptide[1], dtype=x.dtype, compiled=True).kilojoules(x, True)
    assert not compiled.works()
    for a, b in zip(found, Potential(peptide[1], dtype=x.dtype).kilojoules(x, True)):
        assert torch.equal(a, b)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_it_is_the_same(peptide, dtype):
    tolerance = {"rtol": 0, "atol": 1e-9} if dtype is torch.float64 else {"rtol": 0, "atol": 5e-3}
    plain = Potential(peptide[1], dtype=dtype)
    fused = Potential(peptide[1], dtype=dtype, compiled=True, memory=2**17)
    x = broken(distorted(peptide[0].positions, 0.0, 1)).to(dtype)
    more = distorted(peptide[0].positions, 0.005, 150).to(dtype)
    for batch in (x, more, x[:1], x[0], x[:0]):
        energy, slope = plain.kilojoules(batch, gradient=True)
        same, gradient = fused.kilojoules(batch, gradient=True)
        torch.testing.assert_close(same, energy, **tolerance)
        torch.testing.assert_close(gradient, slope, rtol=0, atol=20 * tolerance["atol"])
        torch.testing.assert_close(fused.kilojoules(batch)[0], energy, **tolerance)
    assert compiled.works()


def test_a_wrong_number_of_atoms_is_said(potential):
    with pytest.raises(ValueError, match=rf"expected positions \[..., {potential.atoms}, 3\] in nm, got \(2, 5, 3\)"):
        potential(torch.zeros(2, 5, 3, dtype=torch.float64))
