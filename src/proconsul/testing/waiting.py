"""Waiting in tests for what has no event of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

POLL_S = 0.002


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Return once the condition holds. Raises `TimeoutError`, whose traceback shows which one."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - that is the purpose
            await asyncio.sleep(POLL_S)
