"""Tells a server of another datacenter who we are, after it was away for a moment.

A server that was killed and came back at once is never missed by gossip: its successor answers the
pings, but knows nobody until the next push/pull, up to a minute later. Nor does a server know us whom
the news of our joining could not reach, since no gateway led there yet. Servers of ours look for
other datacenters themselves (`retry_join.WanJoiner`), the reference's do not. A connection, of RPC or
of packets, that can be made after it could not, or broke, is the sign of both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.server")

PAUSE_S = 2.0
"""No server is greeted more often."""
WAITING_MAX = 256

Join = Callable[[Sequence[str]], Awaitable[int]]


class Greeter:
    """Exchanges the member lists with those who were `missed`; `run` never ends."""

    def __init__(self, join: Join) -> None:
        self._join = join
        self._waiting: dict[str, None] = {}
        self._missed = asyncio.Event()

    def missed(self, address: str) -> None:
        """A server is back; `address` is its join address, `name/host:port`."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting[address] = None
            self._missed.set()

    async def run(self) -> None:
        """Greet until cancelled. What fails is left to gossip."""
        while True:
            await self._missed.wait()
            self._missed.clear()
            waiting, self._waiting = self._waiting, {}
            for address in waiting:
                try:
                    await self._join([address])
                except (ProconsulError, TimeoutError) as error:
                    log.debug("Failed to greet server at %s: %s", address, error)
                else:
                    log.debug("greeted server at %s, which was away", address)
            await asyncio.sleep(PAUSE_S)
