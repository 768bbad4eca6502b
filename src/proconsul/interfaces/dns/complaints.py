"""Log lines that whoever may ask can provoke: a few of them, and how many were left out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from proconsul.util.throttle import Throttle

log = logging.getLogger("proconsul.dns")


class Complaints:
    """Logs errors and warnings, a bounded number in each period. `clock()` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._throttle = Throttle()

    def error(self, text: str, *args: object) -> None:
        self._log(logging.ERROR, text, *args)

    def warning(self, text: str, *args: object) -> None:
        self._log(logging.WARNING, text, *args)

    def _log(self, level: int, text: str, *args: object) -> None:
        left_out = self._throttle.take(self._clock())
        if left_out is None:
            return
        log.log(level, text, *args)
        if left_out:
            log.log(level, "%d errors and warnings like this one were not logged", left_out)
