"""Servers that were away for a moment are greeted: each once in a while, failures forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proconsul.federation.greeting import WAITING_MAX, Greeter
from proconsul.util.errors import ProconsulError


class Joins:
    """Records what is joined; the first one fails."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.third = asyncio.Event()

    async def __call__(self, addresses: Sequence[str]) -> int:
        self.seen += addresses
        if len(self.seen) == 1:
            raise ProconsulError("unreachable")
        if len(self.seen) == 3:
            self.third.set()
        return 1


def test_each_is_greeted_once_and_a_failure_does_not_end_it() -> None:
    async def test() -> None:
        joins = Joins()
        greeter = Greeter(joins)
        for name in ("s1", "s2", "s1", "s3"):
            greeter.missed(f"{name}.dc2/10.0.0.1:8302")
        task = asyncio.create_task(greeter.run())
        await asyncio.wait_for(joins.third.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [address.partition(".")[0] for address in joins.seen] == ["s1", "s2", "s3"]

    asyncio.run(test())


def test_only_so_many_wait() -> None:
    async def test() -> None:
        joins = Joins()
        greeter = Greeter(joins)
        for number in range(2 * WAITING_MAX):
            greeter.missed(f"s{number}")
        task = asyncio.create_task(greeter.run())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(joins.seen) == WAITING_MAX

    asyncio.run(test())
