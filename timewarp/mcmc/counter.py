"""The energy evaluations that a proposal makes of its own."""

from __future__ import annotations

from typing import Any


class Counter:
    """Of the energy evaluations that a proposal makes from now on, if it counts them (`asked`)."""

    def __init__(self, proposal: Any):
        self.proposal, self.before = proposal, getattr(proposal, "asked", None)

    def spent(self, usual: int) -> int:
        """What was counted; of a proposal that does not count, what is usual."""
        return usual if self.before is None else self.proposal.asked - self.before
