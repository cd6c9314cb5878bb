"""An appendable trajectory: a DCD file that any reader can open between two appends.

Molecular viewers and mdtraj read DCD: a header with the number of frames, then three records
(x, y, z; float32, angstrom) a frame, each between two marks of its length in bytes. Every frame has the
same size, so that a trajectory can be cut back to the frame at which a run was saved.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

ANGSTROM = np.float32(10.0)  # in a nm
_TITLE = b"timewarp: positions in angstrom".ljust(80)
_COUNT = slice(8, 12)  # the bytes of the header that hold the number of frames


@dataclass(frozen=True)
class Trajectory:
    """A DCD file of `atoms` atoms. Frames are float32 positions in nm; no file stays open between calls."""

    path: Path
    atoms: int

    def create(self) -> None:
        """Write the header of an empty trajectory, in place of what was there."""
        self.path.write_bytes(self._header(0))

    def frames(self) -> int:
        """The number of whole frames in the file, told from its size.

        Raises:
            ValueError: if the header is not that of a trajectory of `atoms` atoms written by this class.
        """
        head = bytearray(self._header(0))
        with self.path.open("rb") as file:
            found = bytearray(file.read(len(head)))
        found[_COUNT] = head[_COUNT]
        if found != head:
            raise ValueError(f"{self.path} is not a trajectory of {self.atoms} atoms written by timewarp")
        return (self.path.stat().st_size - len(head)) // self._frame.itemsize

    def write(self, start: int, positions: Float32[ndarray, "frames atoms 3"]) -> None:
        """Put `positions` (nm) after the first `start` frames; what stood there is overwritten."""
        block = np.zeros(len(positions), self._frame)
        block["axes"]["before"] = block["axes"]["after"] = 4 * self.atoms
        block["axes"]["values"] = np.swapaxes(positions, 1, 2) * ANGSTROM
        with self.path.open("r+b") as file:
            file.seek(len(self._header(0)) + start * self._frame.itemsize)
            file.write(block.tobytes())
            file.flush()  # the frames before their count
            file.seek(0)
            file.write(self._header(start + len(positions)))

    def cut(self, frames: int) -> None:
        """Drop everything after the first `frames` frames."""
        with self.path.open("r+b") as file:
            file.truncate(len(self._header(0)) + frames * self._frame.itemsize)
            file.write(self._header(frames))

    def sync(self) -> None:
        """Return once the file has reached the disk."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def read(self, start: int = 0, stop: int | None = None, every: int = 1) -> Float32[ndarray, "frames atoms 3"]:
        """The positions in nm, from frame `start` on, up to `stop` where it is given; of each `every` the first."""
        if not (count := self.frames()):
            return np.zeros((0, self.atoms, 3), dtype=np.float32)
        # mapped, so that what is left out takes no memory
        block = np.memmap(self.path, self._frame, "r", len(self._header(0)), (count,))[start:stop:every]
        return np.swapaxes(block["axes"]["values"], 1, 2).astype(np.float32) / ANGSTROM

    @property
    def _frame(self) -> np.dtype:
        axis = np.dtype([("before", "<i4"), ("values", "<f4", (self.atoms,)), ("after", "<i4")])
        return np.dtype([("axes", axis, (3,))])

    def _header(self, frames: int) -> bytes:
        # CHARMM's 20 control words: frames, first step, interval, last step (left open); time step; version
        control = struct.pack("<4i5if9ii", frames, 1, 1, 0, *[0] * 5, 1.0, *[0] * 9, 24)
        records = (b"CORD" + control, struct.pack("<i", 1) + _TITLE, struct.pack("<i", self.atoms))
        return b"".join(struct.pack("<i", len(r)) + r + struct.pack("<i", len(r)) for r in records)
