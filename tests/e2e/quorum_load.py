"""Clients of a quorum that suffers faults: what they do, and the history of what became of it.

A steady beat of writes of unique keys, which must all be there in the end if they were acknowledged
and must not be there if they were refused; and clients that write, read (`consistent`) and
compare-and-set a few registers, whose history has to be linearizable.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from proconsul.app.worlds.netns_network import NetnsNetwork
from proconsul.app.worlds.spec import Host, Software
from proconsul.app.worlds.traffic import Answer, NotSentError, Traffic
from proconsul.app.worlds.world import World
from proconsul.testing.linearizability import Kind, Operation

BEAT_S = 0.04
"""Between writes of the beat. They go to the servers in turn, whether earlier ones were answered
or not."""
PATIENCE_S = 2.0
"""Then a client gives up, and does not know."""
CLIENTS = 4
PAUSE_S = 0.03
SETTLED_S = 30.0
_REFUSED = ("No cluster leader", "Not ready to serve consistent reads", "node is not the leader")
"""Errors of both programs that say that nothing was done."""


class RefusedError(Exception):
    """The request was certainly not carried out."""


class Load:
    """Everything that one world's clients do and see. Times are the event loop's."""

    def __init__(self, world: World, rng: random.Random) -> None:
        assert isinstance(world.network, NetnsNetwork)
        self.world, self._rng = world, rng
        self._traffic = Traffic(world.network)
        self._number = itertools.count(1)
        self.epoch = 0
        """Part of the registers' names: a new one keeps each history short."""
        self.history: list[Operation] = []
        self.accepted: list[float] = []
        """When writes were acknowledged."""
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.undecided = 0
        self.errors: dict[str, int] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The clients are at work meanwhile."""
        async with asyncio.TaskGroup() as group:
            work = [self._beat(group), *(self._client(f"c{n}") for n in range(CLIENTS))]
            tasks = [group.create_task(one) for one in work]
            yield
            for task in tasks:
                task.cancel()

    # -- what the test asks

    async def settled(self) -> Host:
        """The leader, once every server that runs knows it and, of ours, serves consistent reads.

        Real Consul's servers keep a connection that swallows everything for up to 40 s.
        """
        deadline = asyncio.get_running_loop().time() + SETTLED_S
        while True:
            servers = [h for h in self.world.servers() if self.world.agent(h).running]
            try:
                said = {await self._leader_at(host) for host in servers}
                leader = next((host for host in servers if said == {f"{host.lan}:8300"}), None)
                if leader is None:
                    raise OSError(f"they speak of {said}")
                for host in servers:
                    if host.software is Software.PROCONSUL:
                        await self._read(host, "settled")
                return leader
            except (OSError, RefusedError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise AssertionError(f"not whole again: {error!r}") from error
                await asyncio.sleep(0.1)

    def longest_gap(self, start: float, end: float) -> float:
        """The longest time without an accepted write between the two."""
        before = max((at for at in self.accepted if at < start), default=start)
        within = [at for at in sorted(self.accepted) if start <= at < end]
        marks = [max(before, start), *within, end]
        return max(b - a for a, b in itertools.pairwise(marks))

    async def kept(self) -> tuple[set[str], set[str]]:
        """(acknowledged keys that are lost, refused keys that are there): both should be empty.

        The registers' last values become part of the history.
        """
        host = await self.settled()
        answer = await self.ask(host, "GET", "/v1/kv/beat/?keys&consistent", b"", 10.0)
        present = set(json.loads(answer.body))
        for key in {operation.key for operation in self.history}:
            await self._record("end", key, Kind.READ, None, lambda key=key: self._value(host, key))
        return self.acknowledged - present, self.refused & present

    # -- clients

    async def _beat(self, group: asyncio.TaskGroup) -> None:
        servers = itertools.cycle(self.world.servers())
        while True:
            _ = group.create_task(self._write_once(next(servers)))
            await asyncio.sleep(BEAT_S)

    async def _write_once(self, host: Host) -> None:
        key = f"beat/{next(self._number)}"
        try:
            await self._put(host, key, "x")
        except RefusedError:
            self.refused.add(key)
        except OSError:
            self.undecided += 1
        else:
            self.acknowledged.add(key)

    async def _client(self, name: str) -> None:
        while True:
            host = self._rng.choice(self.world.servers())
            value = f"{name}-{next(self._number)}"
            register = f"register/{self.epoch}/{self._rng.randrange(2)}"
            match self._rng.choice(("write", "read", "read", "cas")):
                case "write":
                    write = self._writing(host, register, value)
                    await self._record(name, register, Kind.WRITE, value, write)
                case "read":
                    read = self._reading(host, register)
                    await self._record(name, register, Kind.READ, None, read)
                case _:
                    await self._cas(name, host, f"cas/{self.epoch}", value)
            await asyncio.sleep(PAUSE_S)

    async def _cas(self, name: str, host: Host, key: str, value: str) -> None:
        try:
            old, index = await self._read(host, key)
        except (OSError, RefusedError):
            return

        async def swap() -> bool:
            return await self._put(host, key, value, f"?cas={index}")

        await self._record(name, key, Kind.CAS, (old, value), swap)

    def _writing(self, host: Host, key: str, value: str) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            await self._put(host, key, value)

        return write

    def _reading(self, host: Host, key: str) -> Callable[[], Awaitable[str | None]]:
        return lambda: self._value(host, key)

    async def _record(
        self, client: str, key: str, kind: Kind, argument: Any, act: Callable[[], Awaitable[Any]]
    ) -> None:
        clock = asyncio.get_running_loop().time
        called = clock()
        try:
            result = await act()
        except RefusedError:
            return
        except (OSError, asyncio.CancelledError) as error:
            if kind is not Kind.READ:
                self.history.append(Operation(client, key, kind, argument, None, called, None))
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        self.history.append(Operation(client, key, kind, argument, result, called, clock()))

    # -- requests

    async def _put(self, host: Host, key: str, value: str, query: str = "") -> bool:
        answer = await self.ask(host, "PUT", f"/v1/kv/{key}{query}", value.encode(), PATIENCE_S)
        accepted = answer.body.strip() == b"true"
        if accepted:
            self.accepted.append(asyncio.get_running_loop().time())
        return accepted

    async def _value(self, host: Host, key: str) -> str | None:
        return (await self._read(host, key))[0]

    async def _read(self, host: Host, key: str) -> tuple[str | None, int]:
        """(value, index for a compare-and-set)."""
        answer = await self.ask(host, "GET", f"/v1/kv/{key}?consistent", b"", PATIENCE_S)
        if answer.status == 404:
            return None, 0
        (row,) = json.loads(answer.body)
        return base64.b64decode(row["Value"]).decode(), row["ModifyIndex"]

    async def _leader_at(self, host: Host) -> str:
        try:
            answer = await self._traffic.request(host, "GET", "/v1/status/leader", timeout_s=1.0)
            return str(json.loads(answer.body))
        except (OSError, ValueError):
            return ""

    async def ask(
        self, host: Host, method: str, path: str, body: bytes = b"", timeout_s: float = 10.0
    ) -> Answer:
        """A 200 or 404. Raises `RefusedError` and, if the outcome is unknown, OSError."""
        try:
            answer = await self._traffic.request(host, method, path, body, timeout_s)
        except NotSentError as error:
            raise RefusedError(str(error)) from error
        if answer.status in {200, 404}:
            return answer
        text = answer.body.decode(errors="replace").strip()
        self.errors[text] = self.errors.get(text, 0) + 1
        if any(reason in text for reason in _REFUSED):
            raise RefusedError(text)
        raise OSError(f"{answer.status}: {text}")
