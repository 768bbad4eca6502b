"""Who waits for an entry is told about that entry, or that it is undecided."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from proconsul.core.raft.log import Log, MemoryLogStore
from proconsul.core.raft.types import LeadershipLost, SnapshotMeta
from proconsul.drivers.raft.applier import Applier
from proconsul.drivers.raft.snapshots import Snapshot
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import Configuration, Entry, LogType


class _Fsm:
    def apply(self, index: int, data: bytes, extensions: bytes = b"", term: int = 0) -> object:
        return data

    def snapshot(self) -> Iterator[bytes]:
        raise NotImplementedError

    def restore(self, reader: BinaryIO) -> Iterator[None]:
        raise NotImplementedError


def test_an_entry_of_a_later_leader_at_the_same_index_is_no_answer() -> None:
    def failed(error: Exception) -> None:
        raise error

    async def scenario() -> None:
        applier = Applier(_Fsm(), failed, Metrics())
        log = Log(MemoryLogStore())
        applier.start(log)
        futures: list[asyncio.Future[object]] = []
        log.append([Entry(i, 2, LogType.COMMAND, b"ours") for i in (1, 2)])
        for index in (1, 2):
            futures.append(asyncio.get_running_loop().create_future())
            applier.wait(index, futures[-1])
        log.truncate(2)
        log.append([Entry(2, 3, LogType.COMMAND, b"theirs")])
        # One step of the machine: it commits before it tells that leadership is lost
        applier.committed(2)
        applier.lost_leadership()
        assert await futures[0] == b"ours"
        with pytest.raises(LeadershipLost):
            await futures[1]

    asyncio.run(scenario())


def test_a_snapshot_of_the_quorums_history_takes_back_what_was_not() -> None:
    async def scenario() -> None:
        applier = Applier(_Fsm(), lambda _: None, Metrics())
        log = Log(MemoryLogStore())
        applier.start(log)
        log.append([Entry(i, 2, LogType.COMMAND, b"ours") for i in range(1, 10)])
        applier.committed(9)
        meta = SnapshotMeta(5, 3, Configuration(), 0)
        applier.restore(Snapshot(meta, 0, Path()), lambda: iter(()))
        log.restore(5, 3)
        log.append([Entry(6, 3, LogType.COMMAND, b"theirs")])
        applier.committed(6)
        assert (applier.index, applier.term, applier.pending) == (6, 3, 0)

    asyncio.run(scenario())
