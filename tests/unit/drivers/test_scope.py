from __future__ import annotations

import asyncio
import itertools

import pytest

from proconsul.drivers import scope as module
from proconsul.drivers.channel import Channel, Overflow
from proconsul.drivers.scope import TaskScope


def test_leaving_a_scope_ends_all_of_it() -> None:
    async def run() -> None:
        ended: list[str] = []

        async def stubborn() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                ended.append("stubborn")

        async with TaskScope("test") as scope:
            task = scope.spawn("stubborn", stubborn())
            await asyncio.sleep(0)
            assert len(scope) == 1
        assert ended == ["stubborn"]
        assert task.cancelled()
        assert len(scope) == 0
        with pytest.raises(RuntimeError, match="'test' is closed, cannot spawn 'late'"):
            scope.spawn("late", stubborn())
        await scope.aclose()

    asyncio.run(run())


def test_a_failure_is_logged_and_takes_no_sibling_down(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def fail() -> None:
            raise ValueError("why")

        async with TaskScope("test") as scope:
            sibling = scope.spawn("sibling", asyncio.sleep(60))
            with pytest.raises(ValueError, match="why"):
                await scope.spawn("failing", fail())
            assert not sibling.done()

    asyncio.run(run())
    assert "task test/failing failed: ValueError('why')" in caplog.text


def test_supervised_loops_are_restarted_until_they_return(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_DELAY_S_MIN", 0.001)
    monkeypatch.setattr(module, "RESTART_DELAY_S_MAX", 0.004)
    runs: list[float] = []

    async def loop() -> None:
        runs.append(asyncio.get_running_loop().time())
        if len(runs) < 5:
            raise RuntimeError("again")

    async def run() -> None:
        async with TaskScope("test") as scope:
            await scope.supervise("loop", loop)
            assert scope.restarts == {"loop": 4}

    asyncio.run(run())
    assert len(runs) == 5
    assert "loop test/loop failed" in caplog.text
    gaps = [b - a for a, b in itertools.pairwise(runs)]
    assert all(gap >= least for gap, least in zip(gaps, (0.001, 0.002, 0.004, 0.004), strict=True))


def test_supervised_loops_can_be_cancelled() -> None:
    async def run() -> None:
        async def loop() -> None:
            await asyncio.sleep(60)

        async with TaskScope("test") as scope:
            task = scope.supervise("loop", loop)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not scope.restarts

    asyncio.run(run())


def test_a_scope_may_be_closed_by_its_own_task() -> None:
    async def run() -> None:
        scope = TaskScope("test")
        other = scope.spawn("other", asyncio.sleep(60))
        await scope.spawn("closer", scope.aclose())
        assert other.cancelled()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("policy", "kept"), [(Overflow.DROP_OLDEST, [3, 4]), (Overflow.DROP_NEWEST, [1, 2])]
)
def test_channels_never_grow_and_count_what_they_drop(policy: Overflow, kept: list[int]) -> None:
    async def run() -> None:
        channel: Channel[int] = Channel(2, policy)
        assert [channel.put_nowait(i) for i in (1, 2, 3, 4)] == [True, True, False, False]
        assert (len(channel), channel.dropped) == (2, 2)
        assert [await channel.get(), await channel.get()] == kept
        getting = asyncio.get_running_loop().create_task(channel.get())
        await asyncio.sleep(0)
        assert not getting.done()
        channel.put_nowait(9)
        assert await getting == 9

    asyncio.run(run())
