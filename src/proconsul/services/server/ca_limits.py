"""How many certificates a server signs (`connectSignRateLimiter` in agent/consul/server_connect.go).

After a root's rotation every agent wants new leaves at once, and signing is the servers' costliest
work. Who is refused comes again at a random moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proconsul.domain.ca_config import AuthorityConfig
from proconsul.domain.errors import DomainError

RATE_LIMITED = "Rate limit reached, try again later"
WAIT_S = 0.5


class RateLimitedError(DomainError):
    """Agents know this text, and keep the certificate that they have for the time being."""

    def __init__(self) -> None:
        super().__init__(RATE_LIMITED)


class SigningLimits:
    """The limits in force are those of each call's settings: they may change at any time."""

    def __init__(self) -> None:
        self._free_at = 0.0
        self._running = 0
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def admitted(self, config: AuthorityConfig) -> AsyncIterator[None]:
        """Wait for a turn, `WAIT_S` at most. Raises `RateLimitedError`."""
        if config.csr_per_second_max > 0:
            await self._paced(config.csr_per_second_max)
            yield
            return
        if config.csr_concurrent_max > 0:
            await self._seated(config.csr_concurrent_max)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            ended, self._ended = self._ended, asyncio.Event()
            ended.set()

    async def _paced(self, per_second: float) -> None:
        now = asyncio.get_running_loop().time()
        delay = max(0.0, self._free_at - now)
        if delay > WAIT_S:
            raise RateLimitedError
        self._free_at = now + delay + 1 / per_second
        if delay:
            await asyncio.sleep(delay)

    async def _seated(self, seats: int) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while self._running >= seats:
                    await self._ended.wait()
        except TimeoutError:
            raise RateLimitedError from None
