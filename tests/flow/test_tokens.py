"""Laws of the tokens: physics and graph, whatever the file's order; and padding that changes nothing."""

from dataclasses import fields, replace

import pytest
import torch

from timewarp import units
from timewarp.energy import Bonded
from timewarp.flow.chart import InternalChart
from timewarp.flow.growth import ANGLES, CHANNELS
from timewarp.flow.tokens import FEATURES, HARMONICS, Tokens, pad_stack, stacked

from .molecules import chart_of, flow_of, molecule_of, tokens_of
from .test_tree import scrambled

SEQUENCES = ("GG", "HM", "AA", "PG")


def frames(sequence, dtype=torch.float64, batch=4):
    """What `Internal.log_prob` takes, at random coordinates."""
    chart = chart_of(sequence)
    rng = torch.Generator().manual_seed(len(sequence))
    torsions = (2 * torch.rand(batch, chart.torsions, generator=rng, dtype=torch.float64) - 1) * torch.pi
    curves = torch.randn(batch, chart.torsions, CHANNELS, ANGLES, generator=rng, dtype=torch.float64)
    return [t.to(dtype) for t in (torsions, curves)]


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 5e-4)])
def test_padding_changes_nothing(dtype, tolerance):
    flow = flow_of(dtype, spread=0.2)
    tokens = [tokens_of(molecule_of(s), chart_of(s), dtype) for s in SEQUENCES]
    each = [frames(s, dtype) for s in SEQUENCES]
    together = flow.log_prob(stacked(tokens), *(pad_stack(list(parts)) for parts in zip(*each, strict=True)))
    one = together["torsion"]
    assert one.shape == (len(SEQUENCES), 4)
    for k, (own, parts) in enumerate(zip(tokens, each, strict=True)):
        two = flow.log_prob(own, *parts)["torsion"]
        assert ((one[k] - two).abs() / (1 + two.abs())).max() < tolerance


@torch.no_grad()
def test_what_stands_on_padding_is_not_read():
    flow = flow_of(torch.float64, spread=0.2)
    tokens = stacked([tokens_of(molecule_of(s), chart_of(s), torch.float64) for s in ("GG", "HM")])
    parts = [pad_stack(list(pair)) for pair in zip(frames("GG"), frames("HM"), strict=True)]
    dirty = [part.clone() for part in parts]
    torsions = chart_of("GG").torsions
    for value, part in enumerate(dirty, 1):
        part[0, :, torsions:] = value
    one, two = (flow.log_prob(tokens, *each)["torsion"] for each in (parts, dirty))
    assert (one - two).abs().max() < 1e-9


@pytest.mark.parametrize("sequence", ["AA", "HM", "PG"])
def test_the_order_of_the_file_does_not_matter(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    other, _ = scrambled(molecule, 3)
    made = InternalChart(other, Bonded(other), dtype=torch.float64)
    one, two = Tokens.of(molecule, chart, 310.0), Tokens.of(other, made, 310.0)
    for f in fields(Tokens):
        assert torch.allclose(getattr(one, f.name).double(), getattr(two, f.name).double(), atol=1e-4), f.name


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_shapes(sequence):
    molecule, chart = molecule_of(sequence), chart_of(sequence)
    tokens = Tokens.of(molecule, chart, 310.0)
    assert tokens.atoms.shape == (molecule.atoms, FEATURES)
    assert tokens.atoms.isfinite().all()
    assert tokens.atoms.abs().max() < 5  # of the order of one, as networks like it
    assert tokens.torsion_features.shape == (chart.torsions, 2 * HARMONICS)
    assert torch.equal(tokens.stiff, chart.stiff)


def test_the_table_of_a_torsion_is_the_energy_of_turning_it():
    """The bonded energy at the prepared geometry with one bond turned; the table is on a grid of five degrees."""
    molecule, chart = molecule_of("HM"), chart_of("HM")
    tokens = Tokens.of(molecule, chart, 310.0)
    bonded = Bonded(molecule)
    angle = torch.arange(72, dtype=torch.float64) * (2 * torch.pi / 72) - torch.pi
    for t, place in enumerate(chart.place_of_torsion.tolist()):
        internal = chart.prepared.expand(72, -1, -1).clone()
        internal[:, place, 2] = angle
        difference = bonded(chart.cartesian(internal)) - tokens.torsion_energy[t]
        assert (difference - difference.mean()).abs().max() < 0.04
        n = torch.arange(1, HARMONICS + 1)[:, None]
        energy = bonded(chart.cartesian(internal))
        cosines, sines = (torch.cos(n * angle) @ energy / 36, torch.sin(n * angle) @ energy / 36)
        assert (tokens.torsion_features[t] - torch.cat([cosines, sines]) / 4).abs().max() < 0.01


def test_hops_count_bonds():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    tokens = Tokens.of(molecule, chart, 310.0)
    place = chart.back
    i, j = molecule.bonds.unbind(1)
    assert (tokens.hops[place[i], place[j]] == 1).all()
    assert (tokens.hops == 1).sum() == 2 * len(molecule.bonds)
    assert torch.equal(tokens.hops, tokens.hops.T)
    through = tokens.hops[:, :, None] + tokens.hops[None]
    assert (tokens.hops <= through.amin(1)).all()
    # two torsions that share an atom of their axes are no bond apart
    atoms = [set(row) for row in tokens.torsion_atoms[:, 1:3].tolist()]
    for a, one in enumerate(atoms):
        for b, two in enumerate(atoms):
            assert (tokens.torsion_hops[a, b] == 0) == bool(one & two)


def test_temperature_scales_the_tables():
    molecule, chart = molecule_of("AA"), chart_of("AA")
    hot, cold = (Tokens.of(molecule, chart, t) for t in (600.0, 300.0))
    assert torch.allclose(cold.torsion_energy * units.kT(300.0), hot.torsion_energy * units.kT(600.0), atol=1e-4)
    assert torch.equal(hot.atoms, cold.atoms)


def test_mirror_images_differ_by_handedness_alone():
    """All but the sines of stiff dihedrals and of torsion energies is even under reflection."""
    molecule, chart = molecule_of("AA"), chart_of("AA")
    image = replace(molecule, reference=molecule.reference * torch.tensor([-1.0, 1, 1]).double())
    own = InternalChart(image, Bonded(image), dtype=torch.float64)

    def by_atom(chart, tokens):
        return tokens.atoms[chart.back]

    one, two = by_atom(chart, Tokens.of(molecule, chart, 310.0)), by_atom(own, Tokens.of(image, own, 310.0))
    differ = {int(k) for k in ((one - two).abs() > 1e-2).any(0).nonzero()}
    assert FEATURES - 3 in differ  # the sine
    assert not differ & set(range(FEATURES - 5))
