"""The single questions that `federation.status` asks, each with a deadline of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from proconsul.drivers.stream import PushStream
from proconsul.federation.locator import Gateway
from proconsul.federation.names import ANY_NODE, server_name
from proconsul.federation.status_causes import Failure, failure_of
from proconsul.rpc.connection import RpcClientStream
from proconsul.rpc.dialer import Destination, Dialer, Purpose
from proconsul.util.errors import ProconsulError

if TYPE_CHECKING:
    from proconsul.drivers.stream import Stream

PROBE_S = 3.0
"""For one question, connecting and TLS included."""
PROBES_MAX = 32
"""Under way at once: a diagnosis must not be a storm of connections."""

_EMPTY_MAP = b"\x80"

TlsConnect = Callable[[tuple[str, int], str, str, float], "Awaitable[Stream]"]
"""See `federation.dialer.TlsConnect`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a question went: a round trip of `Status.Ping` in seconds, or a failure."""

    failure: Failure | None = None
    round_trip_s: float | None = None

    @property
    def is_ok(self) -> bool:
        return self.failure is None

    def as_json(self) -> dict[str, Any]:
        """The fields that every row with an outcome has."""
        out: dict[str, Any] = {
            "Reachable": self.is_ok,
            "RoundTripMS": milliseconds(self.round_trip_s),
        }
        if self.failure is not None:
            out |= self.failure.as_json()
        return out


class Prober:
    """Asks for one report: at most `PROBES_MAX` at once, none beyond `deadline`."""

    def __init__(
        self, domain: str, dialer: Dialer, connect: TlsConnect | None, deadline: float
    ) -> None:
        self._domain, self._dialer, self._connect = domain, dialer, connect
        self._deadline = deadline
        self._slots = asyncio.Semaphore(PROBES_MAX)

    async def server(self, to: Destination) -> Outcome:
        """Ping one server by the way that every call takes."""

        async def dial(until: float) -> Stream:
            return await self._dialer.dial(to, Purpose.RPC_SINGLE, until)

        return await self._ping(dial)

    async def gateway(self, gateway: Gateway, datacenter: str) -> Outcome:
        """Ping any server of `datacenter` through that gateway and no other."""
        connect = self._connect
        assert connect is not None, "without federation there are no gateways"
        name = server_name(ANY_NODE, datacenter, self._domain)

        async def dial(until: float) -> Stream:
            return await connect(gateway.address, name, Purpose.RPC_SINGLE.alpn, until)

        return await self._ping(dial)

    async def timed(self, call: Callable[[float], Awaitable[str]]) -> tuple[str, Outcome]:
        """A call that takes a deadline, its answer and how long it took."""
        loop = asyncio.get_running_loop()
        async with self._slots:
            until = self._until()
            started = loop.time()
            try:
                async with asyncio.timeout_at(until):
                    answer = await call(until)
            except (ProconsulError, TimeoutError) as error:
                return "", Outcome(failure_of(error))
            return answer, Outcome(None, loop.time() - started)

    async def _ping(self, dial: Callable[[float], Awaitable[Stream]]) -> Outcome:
        loop = asyncio.get_running_loop()
        async with self._slots:
            until = self._until()
            stream: Stream | None = None
            try:
                # A little beyond `until`: the dial's own error says more than a timeout.
                async with asyncio.timeout_at(until + 0.1):
                    stream = await dial(until)
                    started = loop.time()
                    client = RpcClientStream(cast(PushStream, stream))
                    await client.call("Status.Ping", _EMPTY_MAP)
                    return Outcome(None, loop.time() - started)
            except (ProconsulError, TimeoutError) as error:
                return Outcome(failure_of(error))
            finally:
                if stream is not None:
                    stream.abort()

    def _until(self) -> float:
        return min(self._deadline, asyncio.get_running_loop().time() + PROBE_S)


def milliseconds(seconds: float | None) -> float | None:
    """For people: three digits behind the point."""
    return None if seconds is None else round(seconds * 1000, 3)
