"""How long the rest of a benchmark takes, from how long its parts took so far."""

from __future__ import annotations

from statistics import mean


class Pace:
    """Parts of several kinds, each as long as those of its kind were so far.

    Args:
        guess: seconds of a part of a kind of which none is finished.
        side_by_side: parts that are worked on at once.
    """

    def __init__(self, guess: float, side_by_side: int = 1):
        self.guess, self.side_by_side = guess, side_by_side
        self.waiting: dict[str, int] = {}
        self.took: dict[str, list[float]] = {}

    def expect(self, kind: str) -> None:
        """One more part."""
        self.waiting[kind] = self.waiting.get(kind, 0) + 1

    def finished(self, kind: str, seconds: float) -> None:
        """One part is over."""
        self.waiting[kind] = max(0, self.waiting.get(kind, 0) - 1)
        self.took.setdefault(kind, []).append(seconds)

    def left(self) -> float:
        """Seconds until all are over."""
        each = {kind: mean(self.took.get(kind, [self.guess])) for kind in self.waiting}
        return sum(count * each[kind] for kind, count in self.waiting.items()) / self.side_by_side

    @property
    def done(self) -> int:
        return sum(map(len, self.took.values()))

    @property
    def total(self) -> int:
        return self.done + sum(self.waiting.values())

    @property
    def share(self) -> float:
        """Of the time."""
        spent = sum(map(sum, self.took.values())) / self.side_by_side
        whole = spent + self.left()
        return spent / whole if whole > 0 else 1.0


def spelled(seconds: float) -> str:
    """`45 s`, `12 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
