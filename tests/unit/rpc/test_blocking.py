from __future__ import annotations

import asyncio
import random

from proconsul.rpc.blocking import BlockingLimits, block, wait_s
from proconsul.state.watch import Answer


class _Table:
    """One value with an index; `watchers` counts who waits."""

    def __init__(self, index: int) -> None:
        self.index, self.evaluated = index, 0
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


def test_a_restore_to_an_older_state_wakes() -> None:
    async def run() -> None:
        table = _Table(5)
        waiting = asyncio.get_running_loop().create_task(block(table.query, 5, 60.0))
        await asyncio.sleep(0)
        table.commit(2)
        assert await waiting == (2, "value 2")

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
