"""What a service's clients do while the agents beneath them are replaced, and what they saw.

Each client host has an application that talks to its own agent alone: it writes keys and reads them
back, looks a service up, and waits in a blocking query.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dnslib import RCODE, DNSRecord
from estates import normal
from typing_extensions import override

from proconsul.app.worlds import netns
from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import Host
from proconsul.app.worlds.traffic import NotSentError, Traffic
from proconsul.app.worlds.world import World

BEAT_S = 0.05
PATIENCE_S = 10.0
DNS_PORT = 8600
DNS_PATIENCE_S = 5.0
"""What resolvers wait."""
SERVICE = "db"


@dataclass(slots=True)
class Seen:
    """What one kind of request of one application came to."""

    errors: Counter[str] = field(default_factory=Counter)
    """By their text, as `estates.normal` has it."""
    answered: int = 0
    gap_s_max: float = 0.0
    """The longest time without an answer."""
    last: float = field(default_factory=time.monotonic)

    def answer(self) -> None:
        now = time.monotonic()
        self.answered += 1
        self.gap_s_max = max(self.gap_s_max, now - self.last)
        self.last = now


class Applications(threading.Thread):
    """One per client host. `close` ends them and returns when they have."""

    def __init__(self, world: World) -> None:
        super().__init__(name="applications", daemon=True)
        assert isinstance(world.network, NetnsNetwork)
        self._hosts, self._network = world.clients(), world.network
        self._traffic = Traffic(world.network, world.spec.acl.master if world.spec.acl else "")
        self._stopped = threading.Event()
        self.seen: dict[str, Seen] = {}
        """By kind of request."""
        self.acknowledged: dict[str, str] = {}
        self.wrong: list[str] = []
        """Answers that are not true."""

    @override
    def run(self) -> None:
        asyncio.run(self._run())

    def close(self) -> None:
        self._stopped.set()
        self.join(2 * PATIENCE_S)
        assert not self.is_alive()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for host in self._hosts:
                for kind, act in (
                    ("write", self._write), ("read", self._read), ("look up", self._look_up),
                    ("wait", self._wait), ("resolve", self._resolve),
                ):  # fmt: skip
                    self.seen[f"{host.label} {kind}"] = Seen()
                    _ = group.create_task(self._repeat(f"{host.label} {kind}", host, act))

    async def _repeat(
        self, name: str, host: Host, act: Callable[[Host, int], Awaitable[None]]
    ) -> None:
        seen, number = self.seen[name], 0
        while not self._stopped.is_set():
            number += 1
            try:
                await act(host, number)
            except NotSentError:
                seen.errors["connection refused by the agent"] += 1
            except OSError as error:
                seen.errors[normal(str(error) or type(error).__name__)] += 1
            else:
                seen.answer()
            await asyncio.sleep(BEAT_S)

    async def _write(self, host: Host, number: int) -> None:
        key, value = f"app/{host.label}/{number}", f"value {number}"
        body = await self._ask(host, "PUT", f"/v1/kv/{key}", value.encode())
        if body.strip() != b"true":
            raise OSError(f"written: {body!r}")
        self.acknowledged[key] = value

    async def _read(self, host: Host, number: int) -> None:
        """The latest key that the other application or this one was told is written."""
        del number
        if not self.acknowledged:
            return
        key, value = next(reversed(self.acknowledged.items()))
        rows = json.loads(await self._ask(host, "GET", f"/v1/kv/{key}?consistent"))
        if base64.b64decode(rows[0]["Value"]).decode() != value:
            self.wrong.append(f"{key} is {rows}")

    async def _look_up(self, host: Host, number: int) -> None:
        del number
        path = f"/v1/health/service/{SERVICE}?passing"
        if not json.loads(await self._ask(host, "GET", path)):
            raise OSError("no instance of the service")

    async def _wait(self, host: Host, number: int) -> None:
        """A blocking query that times out."""
        del number
        path = f"/v1/catalog/service/{SERVICE}?index={1 << 40}&wait=1s"
        await self._ask(host, "GET", path)

    async def _resolve(self, host: Host, number: int) -> None:
        """The service by DNS, from the host's own agent."""
        question = DNSRecord.question(f"{SERVICE}.service.consul", "SRV")
        question.header.id = number & 0xFFFF
        loop = asyncio.get_running_loop()
        with netns.entered(self._network.namespace(host)):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with sock:
            try:
                await loop.sock_connect(sock, ("127.0.0.1", DNS_PORT))
                await loop.sock_sendall(sock, question.pack())
                async with asyncio.timeout(DNS_PATIENCE_S):
                    answer = DNSRecord.parse(await loop.sock_recv(sock, 65535))
            except ConnectionRefusedError as error:
                raise NotSentError(str(error)) from error
            except TimeoutError as error:
                raise OSError("no answer by DNS") from error
        if answer.header.id != question.header.id or not answer.rr:
            raise OSError(f"DNS answers {RCODE.get(answer.header.rcode)}, {len(answer.rr)} records")

    async def _ask(self, host: Host, method: str, path: str, body: bytes = b"") -> bytes:
        answer = await self._traffic.request(host, method, path, body, PATIENCE_S)
        if answer.status != 200:
            raise OSError(f"{answer.status}: {answer.body.decode(errors='replace').strip()}")
        return answer.body
