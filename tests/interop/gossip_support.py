"""Real gossip peers as processes, and pools of ours, for the interoperability tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proconsul.core.gossip.memberlist import Keyring, MemberlistConfig
from proconsul.core.gossip.serf import MemberStatus, QueryEvent, SerfConfig
from proconsul.drivers.gossip.pool import GossipPool, PoolEvent
from proconsul.drivers.gossip.transport import SocketTransport

DEADLINE_S = 30.0


def consul_binary() -> str:
    """Real Consul's path; skips the test if it is not there."""
    default = Path(__file__).parents[2] / ".peers/root/usr/bin/consul"
    path = os.environ.get("PROCONSUL_CONSUL_BIN", str(default))
    if not Path(path).exists():
        pytest.skip(f"no real Consul at {path}: set PROCONSUL_CONSUL_BIN")
    return path


def serf_binary() -> str:
    """Real Serf's path; skips the test if it is not there."""
    path = shutil.which("serf")
    if path is None:
        pytest.skip("no serf in PATH")
    return path


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


async def eventually(condition: Callable[[], Any], what: str, within_s: float = DEADLINE_S) -> None:
    """Poll until `condition()` (or its awaited result) is true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert loop.time() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.05)


async def run(*command: str) -> str:
    """Output of a command that must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, f"{command}: {out.decode()}"
    return out.decode()


@contextlib.asynccontextmanager
async def process(*command: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A peer in the background, killed at the end."""
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


class SerfAgent:
    """One `serf agent`."""

    def __init__(self, name: str, directory: Path, *arguments: str) -> None:
        self.name, self.directory = name, directory
        self.port, self.rpc_port = free_ports(2)
        self._arguments = arguments

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        command = [
            serf_binary(), "agent", f"-node={self.name}", f"-bind={self.address}",
            f"-rpc-addr=127.0.0.1:{self.rpc_port}", "-log-level=debug", "-profile=local",
            *self._arguments, *arguments,
        ]  # fmt: skip
        async with process(*command, log=self.directory / f"{self.name}.log") as child:
            await eventually(self._answers, f"{self.name} answers")
            yield child

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.rpc_port)
        except OSError:
            return False
        writer.close()
        return True

    async def cli(self, command: str, *arguments: str) -> str:
        return await run(serf_binary(), command, f"-rpc-addr=127.0.0.1:{self.rpc_port}", *arguments)

    async def members(self) -> dict[str, dict[str, Any]]:
        listed = json.loads(await self.cli("members", "-format=json"))
        return {member["name"]: member for member in listed["members"]}

    async def sees(self, name: str, status: str) -> bool:
        member = (await self.members()).get(name)
        return member is not None and member["status"] == status


class Ours:
    """A `GossipPool` that remembers its events and answers queries with `re:<payload>`."""

    def __init__(
        self,
        name: str,
        *,
        tags: dict[str, str] | None = None,
        port: int = 0,
        keys: tuple[bytes, ...] = (),
        snapshot: Path | None = None,
        **serf: Any,
    ) -> None:
        keyring = Keyring(keys[0], keys[1:]) if keys else None
        config = SerfConfig(
            node_name=name,
            memberlist=MemberlistConfig(
                name=name,
                advertise=("127.0.0.1", 0),
                keyring=keyring,
                dead_node_reclaim_s=30.0,
                probe_interval_s=0.3,
                probe_timeout_s=0.2,
            ),
            tags=tags or {},
            leave_propagate_delay_s=0.5,
            reconnect_interval_s=1.0,
            **serf,
        )
        self.events: list[PoolEvent] = []
        self.pool = GossipPool(
            config,
            SocketTransport("127.0.0.1", port),
            on_event=self._event,
            snapshot_path=snapshot,
        )

    def _event(self, event: PoolEvent) -> None:
        self.events.append(event)
        if isinstance(event, QueryEvent):
            self.pool.respond(event, b"re:" + event.payload)

    def status(self, name: str) -> MemberStatus | None:
        member = self.pool.member(name)
        return member.status if member else None

    async def __aenter__(self) -> Ours:
        await self.pool.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.shutdown()

    @property
    def address(self) -> str:
        host, port = self.pool.local().address
        return f"{host}:{port}"
