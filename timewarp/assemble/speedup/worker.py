"""The process that runs one method: `python -m timewarp.assemble.speedup.worker JOB`, started anew for each.

A fresh process, so that what it costs to begin is what a user pays.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from timewarp.assemble.speedup.job import Job


def work(job: Job) -> None:
    """Do the job and leave its record; of an error one line in a file of the same name that ends in `.error`."""
    path = Path(job.record)
    try:
        import torch

        if job.device == "cpu":
            torch.set_num_threads(1)
        from timewarp.assemble.speedup.methods import METHODS, kind

        METHODS[kind(job.method)](job).write(path)
    except Exception as error:
        said = " ".join(str(error).split())
        path.with_suffix(".error").write_text(f"{type(error).__name__}: {said}"[:500])
        raise


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    work(Job.decode(sys.argv[1]))
