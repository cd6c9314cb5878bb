"""The processes that train together: started by torchrun, or one alone.

Every process takes the same decisions from the same random numbers; what differs between them is their share of a
minibatch, and only the first one writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")
PATIENCE = timedelta(hours=1)  # of a process that waits for others, which may be validating


@dataclass(frozen=True)
class Processes:
    """One process among those that train together.

    Attributes:
        rank: of this process.
        count: of all processes.
        device: where this process computes.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @classmethod
    @contextmanager
    def joined(cls, device: str = "cpu") -> Iterator[Processes]:
        """Join the processes that torchrun started (it sets WORLD_SIZE), each with a GPU of its own on CUDA."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            yield cls(device=device)
            return
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
        try:
            yield cls(distributed.get_rank(), count, device)
            distributed.barrier()  # none takes the connections down while another still uses them
        finally:
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def mean_(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes; one message for all of them."""
        if self.count == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        raised = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(raised, distributed.ReduceOp.MAX)
        return bool(raised)

    def told(self, value: T) -> T:
        """The value that the first process has."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, device=torch.device(self.device))
        return box[0]
