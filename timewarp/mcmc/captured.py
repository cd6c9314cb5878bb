"""Steps of a kernel as one CUDA graph.

A step is hundreds of small operations, and what a GPU waits for between them is the host. Recorded once, all of them
are asked for at once. What is recorded may look at no number, so that checks of states belong before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from timewarp.kernel import run

STEPS = 2  # of a graph: kernels that do something else in every other step come round
WARMING = 3  # times that the steps are made before they are recorded, for what libraries set up


class Captured:
    """A kernel's chains on a GPU, whose next steps are recorded.

    Args:
        kernel: pure, with `restore`; its states have `tensors`. What it counts on the host stays as it is.
        state: of it, on the GPU; where the chains go on from.
        rng: of the GPU.
        steps: of the graph.
    """

    def __init__(self, kernel: Any, state: Any, rng: torch.Generator, steps: int = STEPS):
        self.kernel, self.steps = kernel, steps
        self._host = {name: t for name, t in state.tensors().items() if not t.is_cuda}
        self._held = {name: t.clone() for name, t in state.tensors().items() if t.is_cuda}
        before = {name: t.clone() for name, t in self._held.items()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch.no_grad():
            for _ in range(WARMING):
                self._advance(rng)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(rng)
        with torch.cuda.graph(self._graph), torch.no_grad():
            self._advance(rng)
        for name, held in self._held.items():
            held.copy_(before[name])

    def _advance(self, rng: torch.Generator) -> None:
        state = self.kernel.restore(self._held | self._host)
        for state, _ in run(self.kernel, state, self.steps, rng):  # noqa: B007, B020
            pass
        found = state.tensors()
        for name, held in self._held.items():
            held.copy_(found[name])

    def __call__(self) -> None:
        """`steps` steps further."""
        self._graph.replay()

    @property
    def state(self) -> Any:
        """The present of the chains, a copy."""
        return self.kernel.restore({name: t.clone() for name, t in self._held.items()} | self._host)


def stepping(
    kernel: Any, state: Any, rng: torch.Generator, at_once: int = STEPS
) -> Callable[[Any, int], Iterator[Any]]:
    """A function (state, steps) -> states on the way, the last of which is so many steps further.

    On a GPU that is the only one, and the state that it is given is not looked at: it goes on from where it was,
    `at_once` steps at once.
    """
    if rng.device.type != "cuda":
        return lambda state, steps: (after for after, _ in run(kernel, state, steps, rng))
    captured = Captured(kernel, state, rng, at_once)

    def further(_: Any, steps: int) -> Iterator[Any]:
        for _ in range(max(1, steps // captured.steps)):
            captured()
        state = captured.state
        torch.cuda.synchronize()  # a caller that looks at a clock would ask for more than there is time for
        yield state

    return further
