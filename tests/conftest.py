"""One thread a test process, the same examples each time, long measurements only if asked for with `-m long`.

Shapes are checked (see addopts in pyproject.toml).
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ[name] = "1"  # before torch and OpenMM are loaded, here and in what the tests start

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: measures for minutes; run with -m long -s")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
