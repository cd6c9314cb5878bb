"""The directory that a run leaves behind, and from which it can go on as if it had never stopped.

Frames and log lines are appended as they come; a snapshot, written in one atomic step, records how long each
file was when it was taken. Whatever comes after it was written by a run that died, and resuming cuts it away.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from timewarp.atomic import write_atomically
from timewarp.claim import HEADER, DirectoryRefused, OutputError, claim, compare
from timewarp.dcd import Trajectory
from timewarp.snapshot import Snapshot

STATE = "state.safetensors"
__all__ = ["DirectoryRefused", "OutputError", "RunDirectory"]
_BUFFER = 1 << 23  # bytes of frames kept in memory before they are written


class RunDirectory:
    """A directory locked for one run; used as a context manager.

    Attributes:
        saved: the snapshot to go on from, or None where the run starts at the beginning; then `begin` comes first.
        frames: how many frames each chain has.
    """

    def __init__(self, path: Path, log: IO[bytes], identity: Mapping[str, Any], created: bool):
        self.path, self.frames = path, 0
        self.saved: Snapshot | None = None
        self._log, self._identity, self._created = log, dict(identity), created
        self._trajectories: list[Trajectory] = []
        self._pending: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        self._log_bytes = 0

    @classmethod
    def open(cls, path: str | Path, identity: Mapping[str, Any], resume: bool = False) -> RunDirectory:
        """Create and lock the directory or, with `resume`, cut its files back to the last snapshot.

        Resuming where there is no snapshot yet starts at the beginning.

        Args:
            identity: JSON values that a resumed run must share with the one that was stopped.

        Raises:
            DirectoryRefused: if it is in use, holds other files, holds a run and `resume` is not set, or holds a
                run of another `identity`.
            OutputError: if it cannot be written, or its snapshot or trajectories are damaged.
        """
        path = Path(path)
        identity = json.loads(json.dumps(dict(identity)))
        with _guard(path):
            created = not path.exists()
            log = claim(path, resume)
        run = cls(path, log, identity, created)
        try:
            with _guard(path):
                run._recover()
        except BaseException:
            log.close()
            raise
        return run

    def begin(self, topology: str, atoms: int, chains: int) -> None:
        """Start at the beginning: write the topology (PDB text) and empty trajectories.

        A trajectory without frames is a header alone, which some readers refuse: append the first frame early.
        """
        with _guard(self.path):
            self._write_log(HEADER)
            for stale in self.path.glob("chain-*.dcd"):
                stale.unlink()
            self._trajectories = [Trajectory(self.path / f"chain-{i:03d}.dcd", atoms) for i in range(chains)]
            write_atomically(self.path / "topology.pdb", topology.encode())
            for trajectory in self._trajectories:
                trajectory.create()
        self.frames = 0

    def append(
        self,
        step: int,
        positions: Float[Tensor, "chains atoms 3"],
        potential: Float[Tensor, " chains"],
        accepted: Shaped[Tensor, " chains"],
    ) -> None:
        """Add one frame to every chain: positions in nm, potential in kJ/mol, and whether its move was accepted."""
        frame = positions.detach().to("cpu", torch.float32).numpy().copy()
        self._pending.append((step, frame, _array(potential), _array(accepted)))
        if len(self._pending) * frame.nbytes > _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Hand every appended frame to the operating system, so that readers see it."""
        if not self._pending:
            return
        steps, blocks, potentials, accepted = zip(*self._pending, strict=True)
        lines = [
            f"{chain},{step},{u[chain]:.6f},{int(a[chain])}\n"
            for step, u, a in zip(steps, potentials, accepted, strict=True)
            for chain in range(len(self._trajectories))
        ]
        with _guard(self.path):
            for trajectory, block in zip(self._trajectories, np.stack(blocks, 1), strict=True):
                trajectory.write(self.frames, block)
            self._write_log("".join(lines).encode())
        self.frames += len(steps)
        self._pending.clear()

    def save(self, tensors: Mapping[str, Tensor], rng: torch.Generator, meta: Mapping[str, Any]) -> None:
        """Make this moment the one that a resumed run goes on from, at once for all files."""
        self.flush()
        run = {
            "identity": self._identity,
            "atoms": self._trajectories[0].atoms,
            "chains": len(self._trajectories),
            "frames": self.frames,
            "log_bytes": self._log_bytes,
        }
        with _guard(self.path):
            for trajectory in self._trajectories:
                trajectory.sync()
            os.fsync(self._log.fileno())
            self.saved = Snapshot(tensors, rng.get_state(), meta, run)
            write_atomically(self.path / STATE, self.saved.encode())

    def positions(self, start: int = 0) -> Float32[Tensor, "frames chains atoms 3"]:
        """All frames from frame `start` on, in nm."""
        self.flush()
        with _guard(self.path):
            return torch.from_numpy(np.stack([t.read(start)[: self.frames - start] for t in self._trajectories], 1))

    def log(self, every: int = 1) -> dict[str, Float[Tensor, "frames chains"]]:
        """The columns `step`, `potential_kj_per_mol` and `accepted` of the log, float64.

        Of `every` frames the first is given, with the mean of `accepted` over all of them.
        """
        self.flush()
        names, chains = HEADER.decode().strip().split(",")[1:], len(self._trajectories)
        found = np.zeros((-(-self.frames // every), chains, len(names)))
        with _guard(self.path), (self.path / "log.csv").open(newline="") as file:
            for i, row in enumerate(csv.reader(islice(file, 1, None))):
                frame, chain = divmod(i, chains)
                place, after = divmod(frame, every)
                kept, values = found[place, chain], list(map(float, row[1:]))
                if not after:
                    kept[:] = values
                else:
                    kept[-1] += (values[-1] - kept[-1]) / (after + 1)
        return {name: torch.from_numpy(found[..., i].copy()) for i, name in enumerate(names)}

    def report(self, values: Mapping[str, Any], page: str) -> None:
        """Write report.json (what is not finite becomes null) and report.html."""
        with _guard(self.path):
            text = json.dumps(_plain(values), indent=2, allow_nan=False)
            write_atomically(self.path / "report.json", text.encode() + b"\n")
            write_atomically(self.path / "report.html", page.encode())

    def close(self) -> None:
        """Give the directory free; one in which nothing was begun is left as it was found."""
        if not self._trajectories and not self._log.closed and self._log.seek(0, os.SEEK_END) == 0:
            with suppress(OSError):
                (self.path / "log.csv").unlink()
                if self._created:
                    self.path.rmdir()
        self._log.close()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recover(self) -> None:
        state = self.path / STATE
        if not state.exists():
            return
        try:
            saved = Snapshot.decode(state.read_bytes())
        except ValueError as error:
            raise OutputError(f"{state} is damaged ({error}); the trajectories beside it were left alone") from error
        compare(self.path, saved.run["identity"], self._identity)
        frames, log_bytes = saved.run["frames"], saved.run["log_bytes"]
        trajectories = [
            Trajectory(self.path / f"chain-{i:03d}.dcd", saved.run["atoms"]) for i in range(saved.run["chains"])
        ]
        for trajectory in trajectories:
            try:
                found = trajectory.frames()
            except ValueError as error:
                raise OutputError(f"{error}; nothing was changed") from error
            if found < frames:
                raise OutputError(f"{trajectory.path} has {found} frames, but {STATE} was saved after {frames}")
        if (length := self._log.seek(0, os.SEEK_END)) < log_bytes:
            raise OutputError(f"{self.path / 'log.csv'} has {length} bytes, but {STATE} was saved after {log_bytes}")
        for trajectory in trajectories:
            trajectory.cut(frames)
        self._log.truncate(log_bytes)
        self.saved, self.frames, self._trajectories, self._log_bytes = saved, frames, trajectories, log_bytes

    def _write_log(self, text: bytes) -> None:
        start = 0 if text is HEADER else self._log_bytes
        self._log.seek(start)
        self._log.truncate()
        rest = memoryview(text)
        while rest:
            rest = rest[self._log.write(rest) :]
        self._log_bytes = start + len(text)


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise OutputError(f"cannot use {where}: {error.strerror or error}; what was saved in {path} is kept") from error


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float64).numpy().copy()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
