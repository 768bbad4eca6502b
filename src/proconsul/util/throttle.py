"""A bound on log lines that whoever can send us bytes may provoke."""

from __future__ import annotations

LINES = 10
PERIOD_S = 10.0


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
