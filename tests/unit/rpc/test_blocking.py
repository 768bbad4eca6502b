from __future__ import annotations

import asyncio
import random

import pytest

from proconsul.domain.kv import DirEntry
from proconsul.rpc.blocking import BlockingLimits, block, wait_s
from proconsul.state import kv
from proconsul.state.store import Store
from proconsul.state.watch import Answer


class _Table:
    """One value with an index; `watchers` counts who waits."""

    def __init__(self, index: int) -> None:
        self.index, self.evaluated, self.generation = index, 0, 0
        self.callbacks: list[object] = []

    def add(self, callback: object) -> None:
        self.callbacks.append(callback)

    def cancel(self, callback: object) -> None:
        if callback in self.callbacks:
            self.callbacks.remove(callback)

    def query(self) -> Answer[str]:
        self.evaluated += 1
        return Answer(self.index, f"value {self.index}", self)  # type: ignore[arg-type]

    def commit(self, index: int) -> None:
        self.index = index
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()  # type: ignore[operator]


def test_waits_are_bounded_and_jittered() -> None:
    limits, rng = BlockingLimits(300.0, 600.0), random.Random(0)
    for asked_s, least, most in ((0, 300, 318.75), (10, 10, 10.625), (9999, 600, 637.5)):
        waits = [wait_s(int(asked_s * 1e9), limits, rng) for _ in range(100)]
        assert least <= min(waits) < max(waits) <= most


def test_answers_at_once_without_an_index_or_with_an_old_one() -> None:
    async def run() -> None:
        table = _Table(5)
        assert await block(table.query, 0, 60.0) == (5, "value 5")
        assert await block(table.query, 4, 60.0) == (5, "value 5")
        assert (await block(_Table(0).query, 0, 60.0))[0] == 1  # never 0

    asyncio.run(run())


def test_waits_for_a_newer_index_through_false_alarms() -> None:
    async def run() -> None:
        table = _Table(5)
        waiting = asyncio.get_running_loop().create_task(block(table.query, 5, 60.0))
        await asyncio.sleep(0)
        table.commit(5)
        await asyncio.sleep(0.001)
        assert not waiting.done()
        assert table.evaluated == 2
        table.commit(6)
        assert await waiting == (6, "value 6")
        assert not table.callbacks

    asyncio.run(run())


@pytest.mark.parametrize("index", [2, 5, 8])
def test_a_restore_wakes_whatever_index_it_brings(index: int) -> None:
    async def run() -> None:
        store = Store()
        store.write(5, lambda tx: kv.set_entry(tx, DirEntry.of("k", b"old")))
        waiting = asyncio.get_running_loop().create_task(block(lambda: store.kv.get("k"), 5, 60.0))
        await asyncio.sleep(0)
        other = Store()
        other.write(index, lambda tx: kv.set_entry(tx, DirEntry.of("k", b"restored")))
        store.replace_all(other.tables)
        found, row = await asyncio.wait_for(waiting, 10)
        assert row is not None
        assert (found, row.value) == (index, b"restored")
        # Whoever asks of the restored state waits for its next change.
        waiting = asyncio.get_running_loop().create_task(
            block(lambda: store.kv.get("k"), index, 60.0)
        )
        await asyncio.sleep(0)
        store.write(index, lambda tx: kv.set_entry(tx, DirEntry.of("other")))
        store.write(index + 1, lambda tx: kv.set_entry(tx, DirEntry.of("k", b"new")))
        assert (await asyncio.wait_for(waiting, 10))[0] == index + 1

    asyncio.run(run())


def test_a_server_that_lags_behind_the_index_asked_for_waits() -> None:
    async def run() -> None:
        table = _Table(3)
        waiting = asyncio.get_running_loop().create_task(block(table.query, 5, 60.0))
        await asyncio.sleep(0)
        for index in (4, 5):
            table.commit(index)
            await asyncio.sleep(0.001)
            assert not waiting.done()
        table.commit(6)
        assert await waiting == (6, "value 6")

    asyncio.run(run())


def test_time_is_up_with_what_there_is_and_nothing_stays_behind() -> None:
    async def run() -> None:
        table = _Table(5)
        assert await block(table.query, 5, 0.01) == (5, "value 5")
        assert not table.callbacks
        waiting = asyncio.get_running_loop().create_task(block(table.query, 9, 60.0))
        await asyncio.sleep(0)
        assert table.callbacks
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not table.callbacks

    asyncio.run(run())
