"""The expressions of OpenMM's custom forces, taken apart so that known ones are recognised however they are spaced."""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = r"[-+]?[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?"


class Expression(NamedTuple):
    """`body; name=...; ...`, without spaces.

    Attributes:
        body: what is computed.
        parts: the definitions that it uses, but for plain numbers.
        numbers: those.
    """

    body: str
    parts: dict[str, str]
    numbers: dict[str, float]

    @classmethod
    def of(cls, text: str) -> Expression:
        body, *definitions = [part for part in re.sub(r"\s", "", text).split(";") if part]
        pairs = [part.split("=", 1) for part in definitions]
        numbers = {name: float(value) for name, value in pairs if re.fullmatch(_NUMBER, value)}
        return cls(body, {name: value for name, value in pairs if name not in numbers}, numbers)
