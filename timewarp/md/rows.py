"""The parameters of OpenMM's forces as tensors, in nm, kJ/mol, rad and e."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from openmm import unit
from torch import Tensor


def rows(values: Iterable[Sequence[Any]], columns: int) -> Tensor:
    """[rows, columns] in float64, in OpenMM's own units."""
    plain = [[value._value if unit.is_quantity(value) else value for value in row] for row in values]
    return torch.tensor(plain, dtype=torch.float64).reshape(-1, columns)


def table(values: Iterable[Sequence[Any]], atoms: int, names: Sequence[str]) -> dict[str, Tensor]:
    """Columns by name: `names[0]` for the first `atoms` of each row, which are indices, then one for each value."""
    found = rows(values, atoms + len(names) - 1)
    return {names[0]: found[:, :atoms].long()} | dict(zip(names[1:], found[:, atoms:].unbind(1), strict=True))
