"""What one process of a method is asked to do."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

REFERENCE = "reference"  # in place of a method: make what the methods are judged against


@dataclass(frozen=True)
class Job:
    """One process of one method on one peptide: a block of its chains.

    Attributes:
        pdb: the peptide's file.
        method: a name of `methods.METHODS`, or `REFERENCE`.
        record: where the `Record` goes; a directory of the same name without suffix is for files on the way.
        seconds: of sampling, wall-clock, set-up apart.
        platform: of OpenMM.
        frames: of each half of the reference.
        patience: seconds after which the reference is what it is.
        protocols: methods of MD whose dynamics from the reference is looked at.
        dynamics: seconds of each of these.
        began: `time.time()` when the method was asked for.
        parent: process that asks; when it is gone, so is the interest.
    """

    pdb: str
    method: str
    record: str
    seconds: float
    seed: int
    platform: str
    temperature: float
    chains: int
    checkpoint: str
    device: str
    frames: int = 0
    patience: float = 0.0
    protocols: tuple[str, ...] = ()
    dynamics: float = 0.0
    began: float = 0.0
    parent: int = 0

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def now(self) -> Job:
        """The same, asked for now by this process."""
        return replace(self, began=time.time(), parent=os.getpid())

    def elapsed(self) -> float:
        """Seconds since the method was asked for."""
        return time.time() - self.began

    def orphaned(self) -> bool:
        """Whether nobody waits any more."""
        return os.getppid() != self.parent

    def over(self, setup: float) -> bool:
        """Whether the time is over that began after `setup` seconds, or nobody waits any more."""
        return self.elapsed() - setup > self.seconds or self.orphaned()

    @property
    def folder(self) -> Path:
        """The directory of all blocks of the method."""
        return Path(self.record).parent
