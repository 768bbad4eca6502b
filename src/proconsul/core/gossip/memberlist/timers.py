"""One heap for all timers of a machine; cancelling is lazy."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """A callback due at a time; it is told the time at which it runs."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[float], None]) -> None:
        self.when = when
        self.callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """It will not run; cancelling twice, or after it ran, is fine."""
        self.callback = None


class TimerHeap:
    """Timers in order of time, those of one time in order of their making."""

    __slots__ = ("_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = 0

    def add(self, when: float, callback: Callable[[float], None]) -> Timer:
        """Run `callback` at `when`."""
        timer = Timer(when, callback)
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, timer))
        return timer

    def next_at(self) -> float | None:
        """When the next live timer is due."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Run everything due at `now`, including what that makes due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            callback = timer.callback
            if callback is not None:
                timer.callback = None
                callback(now)
