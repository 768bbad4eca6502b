"""Snapshots of a million keys under continuing writes: the longest pause of the event loop.

    .venv/bin/python -m bench.raft_snapshot [-keys 1000000] [-clients 32] [-seconds 3] [-dir DIR]

One node with log and snapshots on disk, the real state machine, and a ticker of 1 ms. Measured without
a snapshot, while one is taken, and while one replaces the living state, as a follower's is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from bench.raft_restart import FIRST_INDEX, key, state

from proconsul.core.raft.types import Config, HardState, Output, SnapshotMeta
from proconsul.domain.kv import DirEntry, KVSRequest
from proconsul.domain.messages import MessageType, encode_command
from proconsul.drivers.raft.node import NodeConfig, RaftNode
from proconsul.drivers.raft.snapshots import FileSnapshotStore
from proconsul.drivers.raft.store import LmdbStore
from proconsul.drivers.raft.transport import Transport
from proconsul.drivers.stream import Stream
from proconsul.services.server.fsm import RaftFsm
from proconsul.wire.raft import Configuration, Server, Suffrage

ADDRESS = "127.0.0.1:1"


class Load:
    """Writers and a ticker."""

    def __init__(self, node: RaftNode, keys: int, clients: int) -> None:
        self._node, self._keys, self._clients = node, keys, clients
        self.writes = 0
        self.pause_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Meanwhile."""
        tasks = [asyncio.create_task(self._write(number)) for number in range(self._clients)]
        tasks.append(asyncio.create_task(self._tick()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.pause_s, last = max(self.pause_s, now - last), now

    async def _write(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            number = (number * 1103515245 + 12345) % (2 * self._keys)  # half of them are new
            entry = DirEntry.of(key(number), b"written while it runs" * 5)
            command = encode_command(MessageType.KVS, KVSRequest(op="set", dir_ent=entry))
            await self._node.apply(command, loop.time() + 30)
            self.writes += 1

    async def during(self, what: str, work: Awaitable[Any]) -> None:
        """Report on the time that `work` takes."""
        self.writes, self.pause_s = 0, 0.0
        began = time.perf_counter()
        await work
        seconds = time.perf_counter() - began
        await asyncio.sleep(0.3)  # what it leaves behind is freed now
        print(
            f"{what:28}{seconds:7.2f} s{self.writes / seconds:9.0f} writes/s"
            f"   longest pause {self.pause_s * 1000:6.1f} ms"
        )


async def measure(options: argparse.Namespace, path: Path) -> None:
    """The three measurements."""

    async def nowhere(_id: str, _address: str, _deadline: float) -> Stream:
        raise OSError("no route")

    log = LmdbStore(path)
    log.write([Output(1, HardState(1))])
    snapshots = FileSnapshotStore(path)
    members = Configuration((Server(Suffrage.VOTER, "a", ADDRESS),))
    sink = snapshots.create(SnapshotMeta(FIRST_INDEX + options.keys, 1, members, 1))
    for piece in state(options.keys):
        sink.write(piece)
    sink.commit()
    node = RaftNode(
        NodeConfig("a", ADDRESS, Config(0.1, 0.1, 0.1)),
        RaftFsm(), Transport(nowhere), log, snapshots,
    )  # fmt: skip
    began = time.perf_counter()
    await node.start()
    print(f"{'restored at the start':28}{time.perf_counter() - began:7.2f} s")
    gc.freeze()
    gc.enable()
    while not node.is_leader:  # noqa: ASYNC110 - it tells by polling as well
        await asyncio.sleep(0.05)
    load = Load(node, options.keys, options.clients)
    async with load.running():
        await load.during("writes alone", asyncio.sleep(options.seconds))
        await load.during("while a snapshot is taken", node.snapshot())
        await load.during("writes alone", asyncio.sleep(options.seconds))
        newest = await asyncio.to_thread(snapshots.latest)
        assert newest is not None
        with snapshots.open(newest) as source:
            deadline = asyncio.get_running_loop().time() + 60
            await load.during("while a snapshot is restored", node.restore(1, source, deadline))
        await load.during("writes alone", asyncio.sleep(options.seconds))
    await node.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-keys", type=int, default=1_000_000)
    parser.add_argument("-clients", type=int, default=32)
    parser.add_argument("-seconds", type=float, default=3.0)
    parser.add_argument("-dir", type=Path, default=None, help="where the data is (a real disk)")
    options = parser.parse_args()
    gc.disable()  # as the agent does until it runs
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        uvloop.run(measure(options, Path(scratch)))


if __name__ == "__main__":
    main()
