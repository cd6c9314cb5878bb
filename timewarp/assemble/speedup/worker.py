"""The process that runs one method: `python -m timewarp.assemble.speedup.worker JOB`, started anew for each.

A fresh process, so that what it costs to begin is what a user pays.
"""

from __future__ import annotations

import os
import platform as host
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from timewarp.assemble.speedup.job import REFERENCE, Job
from timewarp.assemble.speedup.record import Record


def work(job: Job) -> None:
    """Do the job and leave its record; of an error one line in a file of the same name that ends in `.error`.

    Nobody's job leaves nothing: it was cut short.
    """
    path = Path(job.record)
    try:
        load = os.getloadavg()[0]
        import torch

        if job.device == "cpu" or job.method == REFERENCE:
            torch.set_num_threads(1)
        if job.method == REFERENCE:
            from timewarp.assemble.speedup.preparation import refer

            record = refer(job)
        else:
            from timewarp.assemble.speedup.methods import METHODS, kind

            record = METHODS[kind(job.method)](job)
        if not job.orphaned():
            here(record, load).write(path)
    except Exception as error:
        said = " ".join(str(error).split())
        path.with_suffix(".error").write_text(f"{type(error).__name__}: {said}"[:500])
        raise


def here(record: Record, load: float) -> Record:
    """The record, with the machine that it comes from and the load of it when the job began."""
    return replace(record, facts={**record.facts, "machine": processor(), "load": load})


def processor() -> str:
    """The model of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return host.processor() or host.machine()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    work(Job.decode(sys.argv[1]))
