"""Threads for blocking calls: results, errors, and calls that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proconsul.drivers.threads import AbandonableThreads, ThreadsBusyError


def test_results_and_errors_come_back() -> None:
    async def main() -> None:
        threads = AbandonableThreads("test", 1)
        assert await threads.run(lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        assert await threads.run(lambda: 43) == 43, "the place was given back"

    asyncio.run(main())


def test_an_abandoned_call_counts_until_it_returns() -> None:
    async def main() -> None:
        threads = AbandonableThreads("test", 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await threads.run(release.wait)
        with pytest.raises(ThreadsBusyError, match="1 earlier call"):
            await threads.run(lambda: 1)
        release.set()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await threads.run(lambda: 2) == 2
                    return
                except ThreadsBusyError:
                    await asyncio.sleep(0.01)

    release = threading.Event()
    asyncio.run(main())


def test_the_loop_ends_without_its_threads() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await AbandonableThreads("abandoned", 1).run(release.wait)

    release = threading.Event()
    asyncio.run(main())
    (thread,) = (each for each in threading.enumerate() if each.name == "abandoned")
    release.set()
    thread.join(10)
    assert not thread.is_alive()
