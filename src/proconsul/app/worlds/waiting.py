"""Waiting for something to become true: polls with a deadline, and says what was missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from proconsul.app.worlds.spec import WorldError

T = TypeVar("T")


class Missing(Exception):
    """Raised by a condition that does not hold yet; the text says what is missing."""


def until(
    condition: Callable[[], T],
    what: str,
    timeout_s: float = 30.0,
    interval_s: float = 0.05,
) -> T:
    """What `condition` returns as soon as it raises neither Missing nor OSError.

    Raises WorldError with the last thing that was missing when `timeout_s` are over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return condition()
        except (Missing, OSError) as error:
            missing = str(error) or type(error).__name__
        if time.monotonic() >= deadline:
            raise WorldError(f"{what}: not within {timeout_s:g} s; missing: {missing}")
        time.sleep(interval_s)
