"""What is dear to make for a peptide, made once a session."""

import pytest

from timewarp.assemble import embedded
from timewarp.assemble import peptide as building
from timewarp.md.energy import fingerprint

_ARRAYS = {}


@pytest.fixture
def few_conformers(monkeypatch):
    """Charts from few conformers, one for each potential and temperature: worse proposals, as exact."""
    for name, value in {"CONFORMERS": 4, "WALKERS": 8, "WARM_UP": 8}.items():
        monkeypatch.setattr(building, name, value)
    embed = embedded.embed

    def once(target, checkpoint=None, arrays=None):
        key = fingerprint(target.system), target.temperature, checkpoint
        found = embed(target, checkpoint, arrays if arrays is not None else _ARRAYS.get(key))
        _ARRAYS.setdefault(key, found.arrays)
        return found

    monkeypatch.setattr(embedded, "embed", once)
