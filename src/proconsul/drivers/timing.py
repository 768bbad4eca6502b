"""Timers of the event loop, as metrics have them: samples in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proconsul.util.metrics import Metrics


@contextlib.contextmanager
def timed(metrics: Metrics, name: str) -> Iterator[None]:
    """A sample of how long the block took, however it ended."""
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        yield
    finally:
        metrics.sample(name, (clock() - started) * 1000)
