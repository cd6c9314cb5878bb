"""Systems and configurations that energies are compared on."""

from functools import cache

import openmm
import pytest
import torch
from openmm import app, unit

from timewarp.md.export import export
from timewarp.md.system import prepare_sequence

built = cache(prepare_sequence)


def system_of(sequence, *files, cutoff=None, **options) -> openmm.System:
    """A System of a built sequence with the named force-field files; `cutoff` in nm, none if not given."""
    method = app.NoCutoff if cutoff is None else app.CutoffNonPeriodic
    reach = {} if cutoff is None else {"nonbondedCutoff": cutoff * unit.nanometer}
    forcefield = app.ForceField(*files)
    return forcefield.createSystem(
        built(sequence).topology, nonbondedMethod=method, removeCMMotion=False, **reach, **options
    )


def distorted(positions, width: float, count: int, seed: int = 0):
    """`count` copies (float64) with each coordinate moved by N(0, width) nm."""
    x = torch.as_tensor(positions, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    return x + width * torch.randn(count, *x.shape, generator=rng, dtype=torch.float64)


@pytest.fixture(scope="session")
def peptide():
    """A prepared peptide, and its molecule."""
    prepared = built("HIP-ASP-NME")
    return prepared, export(prepared.topology, prepared.system, prepared.positions)
