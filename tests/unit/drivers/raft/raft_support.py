"""Real nodes on loopback TCP for the driver's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from proconsul.core.raft.types import Config
from proconsul.drivers import tcp
from proconsul.drivers.raft.applier import Replace
from proconsul.drivers.raft.node import NodeConfig, RaftNode
from proconsul.drivers.raft.snapshots import FileSnapshotStore
from proconsul.drivers.raft.store import LmdbStore, Store
from proconsul.drivers.raft.transport import Transport
from proconsul.drivers.stream import Stream
from proconsul.testing.waiting import until
from proconsul.wire.raft import Server, Suffrage

FAST = Config(0.2, 0.2, 0.15, 0.01, trailing_logs=20)


class Recorder:
    """A state machine that keeps what it is told."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, index: int, data: bytes, extensions: bytes = b"", term: int = 0) -> object:
        if data == b"boom":
            raise RuntimeError("cannot apply")
        self.commands.append(data)
        return (index, data)

    def snapshot(self) -> Iterator[bytes]:
        return iter([b"%s\n" % command for command in list(self.commands)])

    def restore(self, reader: BinaryIO) -> Generator[None, None, Replace]:
        commands = reader.read().splitlines()
        yield

        def replace() -> Iterator[None]:
            self.commands = commands
            return iter(())

        return replace


class Member:
    """A node with its listener."""

    def __init__(self, path: Path, name: str, config: Config = FAST) -> None:
        self.path, self.name, self.config = path, name, config
        self.fsm = Recorder()
        self.leading: list[bool] = []
        self.failures: list[Exception] = []
        self.open_store: Callable[[Path], Store] = LmdbStore
        self.address = ""
        self.listener = tcp.Server(self._serve, name="raft")

    async def _serve(self, stream: Stream) -> None:
        await self.node.serve(stream)

    async def listen(self) -> None:
        port = int(self.address.rpartition(":")[2] or 0)
        await self.listener.start("127.0.0.1", port)
        self.address = f"127.0.0.1:{self.listener.address[1]}"

    async def start(self) -> None:
        self.node = RaftNode(
            NodeConfig(self.name, self.address, self.config),
            self.fsm,
            Transport(_open, timeout_s=2),
            self.open_store(self.path / self.name),
            FileSnapshotStore(self.path / self.name),
            on_leadership=self.leading.append,
            on_failure=self.failures.append,
        )
        await self.node.start()

    async def stop(self) -> None:
        await self.listener.aclose()
        await self.node.aclose()


async def _open(server_id: str, address: str, deadline: float) -> Stream:
    host, _, port = address.rpartition(":")
    return await tcp.connect((host, int(port)), deadline)


async def nowhere(server_id: str, address: str, deadline: float) -> Stream:
    """The way to servers that do not exist."""
    raise OSError("no route")


def soon(seconds: float = 10.0) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


async def cluster(path: Path, names: str, voters: str | None = None) -> list[Member]:
    """Started members; the voters among them are bootstrapped."""
    members = [Member(path, name) for name in names]
    for member in members:
        await member.listen()
    servers = [
        Server(Suffrage.VOTER, m.name, m.address) for m in members if m.name in (voters or names)
    ]
    for member in members:
        await member.start()
        if member.name in (voters or names):
            member.node.bootstrap(servers)
    return members


async def leader_of(members: list[Member]) -> Member:
    """The member that leads, once one does."""
    await until(lambda: any(m.node.is_leader for m in members))
    return next(m for m in members if m.node.is_leader)
