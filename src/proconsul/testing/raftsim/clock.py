"""Virtual time: a queue of what happens next, and whose life each event belongs to."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Life:
    """One run of a process. Its events die with it, and wait while it is paused."""

    __slots__ = ("alive", "paused_until")

    def __init__(self) -> None:
        self.alive = True
        self.paused_until = 0.0


class Timeline:
    """Events in order of time; those of equal time in order of their creation."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the world began."""
        self.world = Life()
        """The life of what never crashes: network, clients, faults."""
        self.count = 0
        self._events: list[tuple[float, int, Life, Callable[[], None]]] = []

    def at(self, when: float, life: Life, action: Callable[[], None]) -> None:
        """Do `action` at `when` if `life` lasts until then."""
        self.count += 1
        heapq.heappush(self._events, (when, self.count, life, action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do `action` in `delay_s` seconds, whoever crashes meanwhile."""
        self.at(self.now + delay_s, self.world, action)

    def run(self, duration_s: float) -> None:
        """Let `duration_s` seconds pass."""
        events, until = self._events, self.now + duration_s
        while events and events[0][0] <= until:
            when, _, life, action = heapq.heappop(events)
            if not life.alive:
                continue
            if life.paused_until > when:
                self.at(life.paused_until, life, action)
                continue
            self.now = when
            action()
        self.now = until
