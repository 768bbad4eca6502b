"""Streams to servers' RPC ports: directly at home, through mesh gateways to other datacenters.

Through a gateway the connection is native TLS: SNI and expected certificate name
`<node>.server.<dc>.<domain>`, and exactly one ALPN name (Consul's `pool.DialTimeoutWithRPCType` via
`OutgoingALPNRPCWrapper`). Gateways are raced with a head start each (as RFC 8305 races addresses),
so that one which swallows packets costs `HEAD_START_S`, not a connect timeout.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from proconsul.drivers.scope import TaskScope
from proconsul.federation.locator import Gateway, GatewayLocator
from proconsul.federation.names import server_name
from proconsul.rpc.dialer import Destination, Dialer, Hop, HopError, Purpose

if TYPE_CHECKING:
    from proconsul.drivers.stream import Stream
    from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.gateway_locator")

HEAD_START_S = 0.5
"""How long one gateway may take before the next one is tried beside it."""

ATTEMPT_S_MAX = 5.0
"""The longest that one gateway may take for TCP connect and TLS handshake together."""

TlsConnect = Callable[[tuple[str, int], str, str, float], "Awaitable[Stream]"]
"""(gateway address, server name, ALPN name, deadline) -> verified stream; raises `HopError` whose
datacenter and gateway are still empty, or another ProconsulError."""


class FederationDialer:
    """The `rpc.dialer.Dialer` of a server in a federation."""

    def __init__(
        self,
        datacenter: str,
        domain: str,
        direct: Dialer,
        locator: GatewayLocator,
        connect: TlsConnect,
        metrics: Metrics,
        routed: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`routed(datacenter)` says whether one is dialled without gateways."""
        self._datacenter, self._domain, self._routed = datacenter, domain, routed
        self._direct, self._locator, self._connect = direct, locator, connect
        self._metrics = metrics

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> Stream:
        """See `rpc.dialer.Dialer.dial`."""
        if to.datacenter == self._datacenter or self._routed(to.datacenter):
            return await self._direct.dial(to, purpose, deadline)
        loop = asyncio.get_running_loop()
        gateways = self._locator.candidates(to.datacenter, loop.time())
        if not gateways:
            raise HopError(Hop.NO_GATEWAY, to.datacenter, self._locator.describe())
        return await self._race(gateways, to, purpose, deadline)

    async def dial_through(
        self, gateway: Gateway, to: Destination, purpose: Purpose, deadline: float
    ) -> Stream:
        """One attempt through one gateway; remembers how it went. Raises `HopError`."""
        loop = asyncio.get_running_loop()
        limit = min(deadline, loop.time() + ATTEMPT_S_MAX)
        name = server_name(to.node, to.datacenter, self._domain)
        labels = (("gateway", str(gateway)), ("datacenter", to.datacenter))
        self._metrics.incr("consul.federation.gateway.dial", 1, labels)
        try:
            stream = await self._connect(gateway.address, name, purpose.alpn, limit)
        except HopError as error:
            self._metrics.incr("consul.federation.gateway.dial_failed", 1, labels)
            self._locator.failed(gateway, to.datacenter, loop.time())
            raise HopError(error.hop, to.datacenter, error.reason, str(gateway)) from error
        self._locator.worked(gateway, to.datacenter)
        return stream

    async def _race(
        self, gateways: Sequence[Gateway], to: Destination, purpose: Purpose, deadline: float
    ) -> Stream:
        errors: list[HopError] = []
        waiting = list(gateways)
        started: dict[asyncio.Task[Stream | HopError], Gateway] = {}
        running: set[asyncio.Task[Stream | HopError]] = set()
        async with TaskScope("dial") as scope:
            try:
                while waiting or running:
                    if waiting:
                        gateway = waiting.pop(0)
                        attempt = self.dial_through(gateway, to, purpose, deadline)
                        task = scope.spawn(str(gateway), _quiet(attempt))
                        started[task] = gateway
                        running.add(task)
                    done, running = await asyncio.wait(
                        running,
                        timeout=HEAD_START_S if waiting else None,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    winner = _settle(done, errors)
                    if winner is not None:
                        self._overtaken(started, winner, to.datacenter)
                        return winner.result()
            finally:
                for task in running:
                    task.add_done_callback(_discard)
        raise _summary(errors, to.datacenter)

    def _overtaken(
        self,
        started: Mapping[asyncio.Task[Stream | HopError], Gateway],
        winner: asyncio.Task[Stream],
        datacenter: str,
    ) -> None:
        """Whoever had a head start and is silent still is tried last: it swallows packets."""
        for task, gateway in itertools.takewhile(
            lambda item: item[0] is not winner, started.items()
        ):
            if not task.done():
                labels = (("gateway", str(gateway)), ("datacenter", datacenter))
                self._metrics.incr("consul.federation.gateway.dial_failed", 1, labels)
                self._locator.failed(gateway, datacenter, asyncio.get_running_loop().time())


async def _quiet(attempt: Awaitable[Stream]) -> Stream | HopError:
    """Losing a race is a result, not a crash that the scope should log."""
    try:
        return await attempt
    except HopError as error:
        return error


def _settle(
    done: set[asyncio.Task[Stream | HopError]], errors: list[HopError]
) -> asyncio.Task[Stream] | None:
    """The attempt that succeeded, if one has; others that did are closed."""
    winner: asyncio.Task[Stream] | None = None
    for task in done:
        result = task.result()
        if isinstance(result, HopError):
            errors.append(result)
        elif winner is None:
            winner = cast("asyncio.Task[Stream]", task)
        else:
            result.abort()
    return winner


def _discard(task: asyncio.Task[Stream | HopError]) -> None:
    """A loser that connected after all is closed."""
    if not task.cancelled() and task.exception() is None:
        result = task.result()
        if not isinstance(result, HopError):
            result.abort()


def _summary(errors: Sequence[HopError], datacenter: str) -> HopError:
    """The failure that got furthest, with what the other gateways said."""
    order = list(Hop)
    furthest = max(errors, key=lambda error: order.index(error.hop))
    others = [f"{e.gateway}: {e.hop.value}: {e.reason}" for e in errors if e is not furthest]
    reason = furthest.reason + (f" (also tried {'; '.join(others)})" if others else "")
    summary = HopError(furthest.hop, datacenter, reason, furthest.gateway)
    summary.__cause__ = furthest  # `federation.status` reads what lies beneath
    return summary
