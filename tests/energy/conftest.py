"""The marker `long`: runs that measure, left out unless asked for with `-m long`."""

from functools import cache

import openmm
import pytest
import torch
from openmm import app, unit

from timewarp.md.export import export
from timewarp.md.system import prepare_sequence

built = cache(prepare_sequence)


def pytest_configure(config):
    config.addinivalue_line("markers", "long: measures for minutes; run with -m long -s")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]


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
