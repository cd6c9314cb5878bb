"""Proposals that a GPU draws, thousands at once, for chains that stay on the CPU.

A chain's own moves are small steps one after another, in which a GPU would wait for the host most of the time. The
flow's draws depend on no chain, so that those of many steps are made in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from timewarp.assemble.flows import bound, load_flow
from timewarp.assemble.kernels import flow_kernel
from timewarp.assemble.peptide import Peptide
from timewarp.energy import Potential
from timewarp.mcmc import Annealed
from timewarp.mcmc.crew import Drawing, Drawn
from timewarp.training.checkpoint import Checkpoint

WIDTH = 1000  # proposals drawn at once for a chain
FAVOUR = 10.0  # by which the flow's steps get a larger share than where a CPU draws
PATH = 400  # bytes that a path takes, for a pair of atoms
SHARE = 0.4  # of a GPU's memory that paths take
MOST = 16_384  # paths at once


def together(atoms: int, particles: int) -> int:
    """Proposals for a molecule that the GPU has room for at once."""
    memory = torch.cuda.get_device_properties(0).total_memory
    return max(1, min(MOST, int(SHARE * memory / (PATH * atoms**2))) // particles)


@dataclass(frozen=True)
class Afar:
    """The flow's kernel on a GPU, which draws for its like here; see `Crew`.

    What it draws depends on its seeds alone, and follows the same law as on a CPU; the numbers are others.

    Attributes:
        kernel: on the GPU.
        together: proposals that it draws at once.
        width: of the kernel here.
    """

    kernel: Drawing
    together: int
    width: int = WIDTH

    @classmethod
    def of(cls, peptide: Peptide, checkpoint: Checkpoint, stages: int, particles: int) -> Afar | None:
        """The kernel of a checkpoint's flow; None where draws cannot be made apart from the chains."""
        if not isinstance(peptide.potential, Potential):
            return None
        flow = load_flow(checkpoint).to("cuda")
        kernel = flow_kernel(peptide, bound(flow, peptide), stages, WIDTH, particles)
        if not isinstance(kernel, Annealed):
            return None
        return cls(kernel, together(peptide.molecule.atoms, particles))

    def drawn(self, kernel: Drawing, jobs: Sequence[tuple[int, int]]) -> list[Drawn]:
        """The draws of each (count, seed), on the CPU."""
        with torch.no_grad():
            found = [self.kernel.draws(*job) for job in jobs]
        return [Drawn(tuple(part.cpu() for part in one.parts), one.asked) for one in found]

    def expect(self, kernel: Drawing, jobs: Sequence[tuple[int, int]]) -> None:
        """None are begun ahead."""

    @staticmethod
    def favoured(weights: Sequence[float]) -> list[float]:
        """Those of a mixture whose first kernel is the flow's, which costs less here than where they were found."""
        first, *others = [w * FAVOUR if k == 0 else w for k, w in enumerate(weights)] or [0.0]
        total = sum((first, *others))
        return [w / total for w in (first, *others)] if total else []
