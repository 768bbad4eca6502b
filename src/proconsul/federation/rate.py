"""A token bucket and a bounded retry delay, for loops that talk across datacenters."""

from __future__ import annotations

import asyncio

RETRY_S_MIN = 0.25
RETRY_S_MAX = 5.0
"""The reference waits up to 120 s; a federation that heals should be noticed at once."""


class RateLimiter:
    """`rate` rounds a second on average, `burst` at once (golang.org/x/time/rate)."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = float(burst), 0.0

    async def wait(self) -> None:
        """Return when the next round may start."""
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


class Signal:
    """Tells every waiter of this moment that trying again makes sense now."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        """Wake those who wait; whoever waits later waits for the next time."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True at the next `fire`, False after `timeout_s` seconds without one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Backoff:
    """Doubles from `RETRY_S_MIN` to `RETRY_S_MAX`; `hurry` cuts a wait short."""

    def __init__(self, hurry: Signal | None = None) -> None:
        self._next = RETRY_S_MIN
        self._hurry = hurry or Signal()

    def reset(self) -> None:
        """Start over, after a success."""
        self._next = RETRY_S_MIN

    async def wait(self) -> None:
        """Sleep for the present delay and double it."""
        delay, self._next = self._next, min(self._next * 2, RETRY_S_MAX)
        await self._hurry.wait(delay)
