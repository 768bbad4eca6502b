"""Bounds on log lines: those that whoever can send us bytes may provoke, those that loops repeat."""

from __future__ import annotations

LINES = 10
PERIOD_S = 10.0
SAY_AGAIN_S = 30.0
COMPLAINTS_MAX = 256


class Throttle:
    """Allows `LINES` lines in each `PERIOD_S`, and tells afterwards how many were left out."""

    def __init__(self) -> None:
        self._began = -PERIOD_S
        self._lines = 0
        self._left_out = 0

    def take(self, now: float) -> int | None:
        """How many lines were left out since the last one; None: leave out this one too.

        `now` is seconds on the monotonic clock.
        """
        if now - self._began >= PERIOD_S:
            self._began, self._lines = now, 0
        if self._lines >= LINES:
            self._left_out += 1
            return None
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class News:
    """Lets the same complaint through once in `SAY_AGAIN_S`: loops retry much more often."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def is_news(self, what: str, now: float) -> bool:
        """Whether `what` was not said for a while; it counts as said now. `now` as in `Throttle`."""
        if now - self._said.get(what, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return False
        if len(self._said) >= COMPLAINTS_MAX:
            self._said.clear()  # there may be names in them that callers choose
        self._said[what] = now
        return True
