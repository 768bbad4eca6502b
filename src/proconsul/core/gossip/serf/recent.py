"""What was heard of late, so that nothing gossiped is delivered twice (serf 0.9.4 `serf.go`).

A ring indexed by Lamport time modulo its size: older than the ring means too old to tell.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

_PER_TIME_MAX = 1024
"""Different items of one Lamport time. Honest clusters have a few; more is a flood."""


class RecentRing(Generic[T]):
    """Remembers items by Lamport time for the last `size` times."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._slots: list[tuple[int, list[T]] | None] = [None] * size
        self.min_time = 0
        """Anything before is ignored: it was delivered in an earlier life, or is not wanted."""

    def add(self, ltime: int, item: T, current: int) -> bool:
        """True if `item` is news; `current` is the clock after it witnessed `ltime`."""
        if ltime < self.min_time or (current > self._size and ltime < current - self._size):
            return False
        index = ltime % self._size
        slot = self._slots[index]
        if slot is None or slot[0] != ltime:
            self._slots[index] = (ltime, [item])
            return True
        if item in slot[1] or len(slot[1]) >= _PER_TIME_MAX:
            return False
        slot[1].append(item)
        return True

    def entries(self) -> list[tuple[int, list[T]]]:
        """All that is remembered: (Lamport time, items)."""
        return [slot for slot in self._slots if slot is not None]
