"""Joining a pool until it works, and keeping the primary's gateways resolved.

Both use the same entries: addresses, host names (each may have several records), and
`provider=...` strings; `Resolver` turns them into addresses (`federation.discovery`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from proconsul.federation.names import wan_join_address
from proconsul.federation.rate import RETRY_S_MAX, RETRY_S_MIN, Signal
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.federation.locator import GatewayLocator

log = logging.getLogger("proconsul.agent")

FIRST_RETRY_S = 0.5
WAN_CHECK_S = 2.0
"""How often a server looks whether it knows an alive server of every datacenter."""
NEED_CHECK_S = 1.0
"""How often to look whether the configured addresses are needed again; looking asks nobody."""
GATEWAY_PORT_DEFAULT = 8443
"""Where an entry of `primary_gateways` names no port."""

Join = Callable[[Sequence[str]], Awaitable[int]]


class RetryJoinError(ProconsulError):
    """`retry_max` attempts were not enough: the agent ends."""


class Resolver(Protocol):
    """Turns configured entries into what can be dialled."""

    async def join_addresses(self, entries: Sequence[str]) -> list[str]:
        """Entries for a pool's `join`: `provider=` strings replaced, others unchanged."""
        ...

    async def gateway_addresses(self, entries: Sequence[str]) -> list[tuple[str, int]]:
        """Every address behind the entries; those that fail are logged and left out."""
        ...


async def retry_join(
    cluster: str,
    entries: Sequence[str],
    join: Join,
    resolver: Resolver,
    *,
    interval_s: float,
    attempts_max: int = 0,
) -> None:
    """Join `entries` again until one try succeeds, every `interval_s` at the latest.

    Unless attempts are counted the first ones follow each other faster, doubling from 0.5 s: when a
    whole datacenter starts, servers come up seconds after those who look for them. Raises
    `RetryJoinError` after `attempts_max` tries (0: never).
    """
    if not entries:
        return
    log.info("Joining cluster...: cluster=%s", cluster)
    attempt = 0
    delay = interval_s if attempts_max else min(FIRST_RETRY_S, interval_s)
    while True:
        try:
            found = await resolver.join_addresses(entries)
            if not found:
                raise RetryJoinError("No servers to join")
            count = await join(found)
        except (ProconsulError, TimeoutError) as error:
            attempt += 1
            if attempts_max and attempt > attempts_max:
                raise RetryJoinError(
                    f"agent: max join {cluster} retry exhausted, exiting"
                ) from error
            log.warning(
                "Join cluster failed, will retry: cluster=%s retry_interval=%gs error=%s",
                cluster,
                delay,
                error,
            )
            await asyncio.sleep(delay)
            delay = min(delay * 2, interval_s)
        else:
            log.info(
                "Join cluster completed. Synced with initial agents: cluster=%s num_agents=%d",
                cluster,
                count,
            )
            return


class WanJoiner:
    """Keeps the WAN pool whole: joins every datacenter of which it knows no alive server.

    A secondary joins the primary so, as in the reference. Here every server also does it for each
    datacenter that has a federation state: a restarted server need not wait to be found, and a
    healed partition is noticed within seconds instead of serf's reconnect interval.

    `wanted()` are the datacenters to be joined now. Never ends; each datacenter backs off by itself.
    """

    def __init__(self, wanted: Callable[[], Sequence[str]], join: Join, changed: Signal) -> None:
        self._wanted, self._join, self._changed = wanted, join, changed
        self._next: dict[str, tuple[float, float]] = {}
        self._complaints: dict[str, str] = {}

    async def run(self) -> None:
        """Join until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            wanted = self._wanted()
            self._next = {dc: self._next[dc] for dc in wanted if dc in self._next}
            for datacenter in wanted:
                due, delay = self._next.get(datacenter, (0.0, RETRY_S_MIN))
                if clock() < due:
                    continue
                if await self._attempt(datacenter):
                    self._next.pop(datacenter, None)
                else:
                    self._next[datacenter] = (clock() + delay, min(delay * 2, RETRY_S_MAX))
            soonest = min((due for due, _ in self._next.values()), default=clock() + WAN_CHECK_S)
            if await self._changed.wait(max(RETRY_S_MIN / 4, min(WAN_CHECK_S, soonest - clock()))):
                self._next.clear()

    async def _attempt(self, datacenter: str) -> bool:
        try:
            await self._join([wan_join_address(datacenter)])
        except (ProconsulError, TimeoutError) as error:
            if str(error) != self._complaints.get(datacenter):
                self._complaints[datacenter] = str(error)
                log.warning("Join of datacenter %s failed, will retry: %s", datacenter, error)
            return False
        self._complaints.pop(datacenter, None)
        log.info("Joined datacenter %s in the WAN through mesh gateways", datacenter)
        return True


class PrimaryGatewayRefresher:
    """Feeds `primary_gateways`, resolved, into the locator.

    They are resolved at start, and again every few seconds while the locator is outside its normal
    state: the reference stops after its first success and cannot heal when all gateways of the
    primary are replaced at once. `entries` may be replaced on reload.
    """

    def __init__(
        self,
        entries: Sequence[str],
        resolver: Resolver,
        locator: GatewayLocator,
        interval_s: float,
        needs_help: Callable[[], bool],
    ) -> None:
        self.entries = tuple(entries)
        self._resolver, self._locator = resolver, locator
        self._interval_s, self._needs_help = interval_s, needs_help
        self._wake = asyncio.Event()

    def reload(self, entries: Sequence[str]) -> None:
        """Use these entries from now on."""
        if tuple(entries) != self.entries:
            self.entries = tuple(entries)
            self._wake.set()

    async def run(self) -> None:
        """Refresh until cancelled."""
        known = False
        while True:
            reloaded = self._wake.is_set()
            self._wake.clear()
            # The need may arise at any time, so it is looked for more often than names are resolved
            delay = min(self._interval_s, NEED_CHECK_S)
            if reloaded and not self.entries:
                self._locator.set_fallback(())
            elif self.entries and (not known or reloaded or self._needs_help()):
                delay = min(self._interval_s, RETRY_S_MAX)
                found = await self._resolver.gateway_addresses(self.entries)
                if found:
                    known = True
                    self._locator.set_fallback(found)
                else:
                    log.warning(
                        "Refreshing mesh gateways failed, will retry: cluster=primary "
                        "retry_interval=%gs error=No mesh gateways found",
                        delay,
                    )
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                continue
