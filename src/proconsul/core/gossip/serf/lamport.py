"""Lamport's logical clock, as serf 0.9.4 `lamport.go` runs three of: members, events, queries."""

from __future__ import annotations

_TIME_MAX = 2**63
"""Beyond it a time that is heard of is a lie: accepting it would end all ordering for good."""


class LamportClock:
    """Counts; moves past every time it hears of."""

    def __init__(self, time: int = 0) -> None:
        self.time = time

    def increment(self) -> int:
        """One further; returns the new time."""
        self.time += 1
        return self.time

    def witness(self, other: int) -> None:
        """Be at least one ahead of `other`."""
        if self.time <= other < _TIME_MAX:
            self.time = other + 1
