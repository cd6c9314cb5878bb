"""Draws that do not depend on the chains, made beside them on other cores, and ahead of being wanted.

On Linux by processes that are forked when the first draws are wanted, so that they know all that this process does and
no operation waits for its interpreter; elsewhere, where a fork is not safe, by threads. What is drawn depends on its
seed alone: with any number of cores, and with none ahead, it is the same.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

DIES_WITH_ITS_PARENT = 1  # PR_SET_PDEATHSIG of prctl
_own = threading.local()  # what a worker draws from


class Drawn(NamedTuple):
    """The parts of some draws, and the energy evaluations that they took where the proposal counts them."""

    parts: tuple[Tensor, ...]
    asked: int


@runtime_checkable
class Drawing(Protocol):
    """A kernel that can draw."""

    def draws(self, count: int, seed: int) -> Drawn: ...


@runtime_checkable
class Drawers(Protocol):
    """Who draws in place of a kernel."""

    def drawn(self, kernel: Drawing, jobs: Sequence[tuple[int, int]]) -> list[Drawn]:
        """The draws of each (count, seed)."""
        ...

    def expect(self, kernel: Drawing, jobs: Sequence[tuple[int, int]]) -> None:
        """These draws will be wanted."""
        ...


class Crew:
    """So many workers for one kernel; as a context manager they end with it.

    A worker that is lost, as for want of memory, is done without: what it was at is drawn here.
    """

    def __init__(self, count: int):
        self.count = count
        self._kernel: Drawing | None = None
        self._workers: Executor | None = None
        self._ahead: dict[tuple[int, int], Future] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, whatever they are at; from here on everything is drawn here."""
        workers, self._workers, self._ahead = self._workers, None, {}
        self.count = 0
        if isinstance(workers, ProcessPoolExecutor):
            for process in list((workers._processes or {}).values()):
                process.kill()  # what they are at is wanted by nobody
        if workers:
            workers.shutdown(wait=True, cancel_futures=True)

    def drawn(self, kernel: Drawing, jobs: Sequence[tuple[int, int]]) -> list[Drawn]:
        """The draws of each (count, seed), those that were begun ahead among them."""
        try:
            waiting = [self._ahead.pop(job, None) or self._begun(kernel, job) for job in jobs]
            pairs = zip(waiting, jobs, strict=True)
            return [_here(kernel, job) if one is None else _tensors(*one.result()) for one, job in pairs]
        except BrokenProcessPool:
            self.close()
            return [_here(kernel, job) for job in jobs]

    def expect(self, kernel: Drawing, jobs: Sequence[tuple[int, int]]) -> None:
        """Begin draws that will be wanted."""
        self._ahead = {}
        for job in jobs:
            try:
                begun = self._begun(kernel, job)
            except BrokenProcessPool:
                self.close()
                return
            if begun:
                self._ahead[job] = begun

    def _begun(self, kernel: Drawing, job: tuple[int, int]) -> Future | None:
        if self.count < 2 or (self._kernel is not None and kernel != self._kernel):
            return None
        if self._workers is None:
            self._kernel, self._workers = kernel, _workers(self.count, kernel)
        return self._workers.submit(_work, *job)


def _workers(count: int, kernel: Drawing) -> Executor:
    forks = sys.platform == "linux" and not multiprocessing.current_process().daemon
    if not forks:
        return ThreadPoolExecutor(count, initializer=_begin, initargs=(kernel,))
    context: Any = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(count, context, _begin_process, (kernel, os.getpid()))


def _begin_process(kernel: Drawing, parent: int) -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(DIES_WITH_ITS_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    _begin(kernel)


def _begin(kernel: Drawing) -> None:
    torch.set_num_threads(1)  # a worker has one core
    _own.kernel = kernel


def _work(count: int, seed: int) -> tuple[list[np.ndarray], int]:
    found = _here(_own.kernel, (count, seed))
    return [part.numpy() for part in found.parts], found.asked


def _here(kernel: Drawing, job: tuple[int, int]) -> Drawn:
    with torch.no_grad():
        return kernel.draws(*job)


def _tensors(parts: Sequence[np.ndarray], asked: int) -> Drawn:
    return Drawn(tuple(torch.from_numpy(part) for part in parts), asked)
