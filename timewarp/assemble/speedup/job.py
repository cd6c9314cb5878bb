"""What one process of a method is asked to do."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Job:
    """One process of one method on one peptide.

    Attributes:
        pdb: the peptide's file.
        method: a name of `methods.METHODS`.
        record: where the `Record` goes; a directory of the same name without suffix is for files on the way.
        seconds: of sampling, wall-clock, set-up apart.
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
    began: float
    parent: int

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def elapsed(self) -> float:
        """Seconds since the method was asked for."""
        return time.time() - self.began

    def over(self, setup: float) -> bool:
        """Whether the time is over that began after `setup` seconds, or nobody waits any more."""
        return self.elapsed() - setup > self.seconds or os.getppid() != self.parent
