"""One thread a test process, the same examples each time, long measurements only if asked for with `-m long`.

Shapes are checked (see addopts in pyproject.toml).
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ[name] = "1"  # before torch and OpenMM are loaded, here and in what the tests start

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: measures for minutes; run with -m long -s")
    for name in ("flaky", "slow", "gpu_needed", "gpu_ci"):
        config.addinivalue_line("markers", f"{name}: on tests of openmmtools, some of which are run here")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]


_CHARTS: dict = {}


@pytest.fixture
def few_conformers(monkeypatch):
    """Charts from few conformers, made once for each potential and temperature: worse proposals, as exact."""
    from timewarp.assemble import embedded
    from timewarp.assemble import peptide as building
    from timewarp.md.energy import fingerprint

    for name, value in {"CONFORMERS": 4, "WALKERS": 8, "ROUNDS": (8,)}.items():
        monkeypatch.setattr(building, name, value)
    embed = embedded.embed

    def once(target, checkpoint=None, arrays=None):
        key = fingerprint(target.system), target.temperature, checkpoint
        found = embed(target, checkpoint, arrays if arrays is not None else _CHARTS.get(key))
        _CHARTS.setdefault(key, found.arrays)
        return found

    monkeypatch.setattr(embedded, "embed", once)
