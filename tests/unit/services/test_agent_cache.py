"""The agent's cache: hits, refreshes, waiting, errors, limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from proconsul.domain.catalog import IndexedCheckServiceNodes
from proconsul.domain.errors import NoServersError
from proconsul.domain.options import DatacentersRequest, ServiceSpecificRequest
from proconsul.drivers.scope import TaskScope
from proconsul.services.agent import cache as cache_module
from proconsul.services.agent.cache import Cache, CacheMeta, CacheOptions
from proconsul.services.agent.cache_types import DATACENTERS, HEALTH_SERVICES
from proconsul.testing.waiting import until
from proconsul.util.metrics import Metrics

REQUEST = ServiceSpecificRequest(datacenter="dc1", service_name="web", service_tags=["b", "a"])


class Servers:
    """Answer blocking queries; `index` moves by `change`."""

    def __init__(self) -> None:
        self.index, self.calls = 5, list[Any]()
        self.error: Exception | None = None
        self._changed = asyncio.Event()

    def change(self, error: Exception | None = None) -> None:
        self.index += 1
        self.error = error
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def rpc(self, method: str, request: Any) -> Any:
        self.calls.append(request)
        if method == "Catalog.ListDatacenters":
            return [f"dc{len(self.calls)}"]
        if request.min_query_index >= self.index:
            await self._changed.wait()
        if self.error is not None:
            raise self.error
        return IndexedCheckServiceNodes(index=self.index)


def run(
    test: Callable[[Cache, Servers], Awaitable[None]], options: CacheOptions | None = None
) -> None:
    async def main() -> None:
        servers = Servers()
        async with TaskScope("test") as scope:
            cache = Cache(
                servers.rpc, scope, random.Random(1), Metrics(), options or CacheOptions()
            )
            await test(cache, servers)
            cache.close()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_second_question_is_a_hit_and_is_kept_fresh() -> None:
    async def test(cache: Cache, servers: Servers) -> None:
        first = await cache.get(HEALTH_SERVICES, REQUEST)
        assert (first[0].index, first[1].hit) == (5, False)
        other_order = replace_(REQUEST, service_tags=["a", "b"])
        value, meta = await cache.get(HEALTH_SERVICES, other_order)
        assert (value, meta.hit, meta.age_s, meta.index) == (first[0], True, 0.0, 5)
        await until(lambda: len(servers.calls) > 1)
        assert servers.calls[1].min_query_index == 5
        assert servers.calls[1].max_query_time_ns == 600 * 10**9
        assert all(call.allow_stale for call in servers.calls)
        servers.change()
        await until(lambda: servers.calls[-1].min_query_index == 6)
        assert (await cache.get(HEALTH_SERVICES, REQUEST))[0].index == 6

    run(test)


def test_other_questions_are_other_entries() -> None:
    async def test(cache: Cache, _servers: Servers) -> None:
        for changes in (
            {},
            {"token": "t"},
            {"datacenter": "dc2"},
            {"filter": "x"},
            {"connect": True},
        ):
            _, meta = await cache.get(HEALTH_SERVICES, replace_(REQUEST, **changes))
            assert not meta.hit
        same = ("max_age_ns", 1), ("must_revalidate", True), ("use_cache", True)
        for name, value in same:
            _, meta = await cache.get(HEALTH_SERVICES, replace_(REQUEST, **{name: value}))
            assert meta.hit  # what is kept fresh need not be revalidated
        assert len(cache) == 5

    run(test)


def test_waiting_for_a_newer_answer() -> None:
    async def test(cache: Cache, servers: Servers) -> None:
        await cache.get(HEALTH_SERVICES, REQUEST)
        waiting = asyncio.ensure_future(
            cache.get(HEALTH_SERVICES, replace_(REQUEST, min_query_index=5))
        )
        await turns()
        assert not waiting.done()
        servers.change()
        value, meta = await waiting
        assert (value.index, meta.hit) == (6, False)
        short = replace_(REQUEST, min_query_index=6, max_query_time_ns=10**6)
        value, meta = await cache.get(HEALTH_SERVICES, short)
        assert (value.index, meta.hit, meta.index) == (6, False, 6)

    run(test)


def test_errors_keep_the_old_answer_and_tell_its_age() -> None:
    async def test(cache: Cache, servers: Servers) -> None:
        servers.error = NoServersError()
        with pytest.raises(NoServersError):
            await cache.get(HEALTH_SERVICES, REQUEST)
        servers.error = None
        value, _ = await cache.get(HEALTH_SERVICES, REQUEST)
        servers.change(NoServersError())
        meta = CacheMeta()
        while not meta.age_s:  # until the refresh has failed; `run` bounds it
            await asyncio.sleep(0.001)
            again, meta = await cache.get(HEALTH_SERVICES, REQUEST)
            assert again is value
            assert meta.hit

    run(test)


def test_failing_refreshes_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "BACKOFF_S_MAX", 30.0)

    async def test(cache: Cache, servers: Servers) -> None:
        await cache.get(HEALTH_SERVICES, REQUEST)
        servers.change(NoServersError())
        await until(lambda: len(servers.calls) >= 5)
        await turns()
        # The first answer, three failures at once, and one after which it waits.
        assert len(servers.calls) == 1 + cache_module.BACKOFF_AFTER + 1

    run(test)


def test_answers_that_nobody_refreshes() -> None:
    async def test(cache: Cache, servers: Servers) -> None:
        request = DatacentersRequest()
        assert (await cache.get(DATACENTERS, request))[0] == ["dc1"]
        value, meta = await cache.get(DATACENTERS, replace_(request, token="x"))
        assert (value, meta.hit) == (["dc1"], True)
        assert meta.age_s > 0
        await asyncio.sleep(0.002)
        aged, meta = await cache.get(DATACENTERS, replace_(request, max_age_ns=10**6))
        assert (aged, meta.hit) == (["dc2"], False)
        forced, _ = await cache.get(DATACENTERS, replace_(request, must_revalidate=True))
        assert forced == ["dc3"]
        assert len(servers.calls) == 3

    run(test)


def test_entries_nobody_asks_for_expire() -> None:
    async def test(cache: Cache, servers: Servers) -> None:
        await cache.get(replace(HEALTH_SERVICES, ttl_s=0.02), REQUEST)
        await until(lambda: len(cache) == 0)
        servers.change()
        calls = len(servers.calls)
        await turns()
        assert len(servers.calls) == calls

    run(test)


def test_the_least_recently_asked_for_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "ENTRIES_MAX", 2)

    async def test(cache: Cache, _servers: Servers) -> None:
        for name in ("a", "b", "a", "c"):
            await cache.get(HEALTH_SERVICES, replace_(REQUEST, service_name=name))
        assert len(cache) == 2
        assert (await cache.get(HEALTH_SERVICES, replace_(REQUEST, service_name="a")))[1].hit
        assert not (await cache.get(HEALTH_SERVICES, replace_(REQUEST, service_name="b")))[1].hit

    run(test)


def test_fetches_of_an_entry_are_limited() -> None:
    async def test(cache: Cache, servers: Servers) -> None:
        await cache.get(HEALTH_SERVICES, REQUEST)
        for _ in range(20):
            servers.change()
            await turns()
        assert len(servers.calls) == 2

    run(test, CacheOptions(fetch_rate=0.5, fetch_burst=2))


async def turns() -> None:
    """More turns of the loop than anything that does not wait for time needs."""
    for _ in range(20):
        await asyncio.sleep(0)


def replace_(request: Any, **changes: Any) -> Any:
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    return type(request)(**{**fields, **changes})
