"""Small molecules with their charts, made once a session; and flows whose networks are not the identity."""

from dataclasses import fields, replace
from functools import cache

import torch
from torch import nn

from timewarp.energy import Bonded, Potential
from timewarp.flow.chart import InternalChart
from timewarp.flow.curvature import Curvature
from timewarp.flow.growth import Growth
from timewarp.flow.internal import Internal, InternalConfig, InternalProposal
from timewarp.flow.response import Response
from timewarp.flow.stiff import Stiff
from timewarp.flow.tokens import Tokens
from timewarp.md.export import export
from timewarp.md.system import prepare_sequence

SMALL = InternalConfig(width=24, heads=4, encoder_layers=1, torsion_layers=2, harmonics=6)


@cache
def prepared(sequence):
    return prepare_sequence(sequence)


@cache
def molecule_of(sequence):
    p = prepared(sequence)
    return export(p.topology, p.system, p.positions)


@cache
def chart_of(sequence, dtype=torch.float64):
    molecule = molecule_of(sequence)
    if dtype == torch.float64:
        return InternalChart(molecule, Bonded(molecule), dtype=dtype)
    return InternalChart(molecule, whitening=chart_of(sequence).arrays(), dtype=dtype)


def names_of(sequence):
    """ATOM + number of the residue, for what a test says of a molecule; the package reads no names."""
    return [f"{a.name}{a.residue.index}" for a in prepared(sequence).topology.atoms()]


def flow_of(dtype=torch.float32, seed=0, spread=0.1, config=SMALL):
    """A flow with random weights in every layer."""
    flow, rng = Internal(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(spread * torch.randn(p.shape, generator=rng))
        for part in flow.modules():
            if isinstance(part, nn.LayerNorm):
                part.weight.add_(1.0)
    return flow.to(dtype)


def tokens_of(molecule, chart, dtype=torch.float32):
    tokens = Tokens.of(molecule, chart, 310.0, SMALL.grid)
    floats = {f.name: getattr(tokens, f.name) for f in fields(Tokens) if getattr(tokens, f.name).is_floating_point()}
    return replace(tokens, **{name: value.to(dtype) for name, value in floats.items()})


def proposal_of(molecule, chart, flow, dtype=torch.float32):
    growth = Growth(molecule, chart, 310.0)
    return InternalProposal(flow, tokens_of(molecule, chart, dtype), stiff_of(molecule, chart, dtype), growth)


def stiff_of(molecule, chart, dtype=torch.float32, steps=1):
    response = Response(chart, Potential(molecule, dtype=dtype), steps=steps, damping=1.0, cap=3.0)
    return Stiff(chart, response, Curvature(molecule, chart, 310.0))


def shaken(molecule, count, seed, size=0.002):
    """The prepared geometry with noise of `size` nm on every coordinate, turned and moved (float64)."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    turn = torch.linalg.qr(normal(count, 3, 3))[0]
    turn = turn * torch.linalg.det(turn)[:, None, None]
    x = molecule.reference + size * normal(count, molecule.atoms, 3)
    return x @ turn + normal(count, 1, 3)
