"""The agent's cache: answers of servers that are kept, and kept fresh (`agent/cache/cache.go`).

An entry is one question (its type, datacenter, token and what makes it another question). Types that
refresh have a blocking query open as long as somebody asked within the last days, so that a hit is as
fresh as the connection to the servers; the others keep an answer until `max-age` or `must-revalidate`
asks for a newer one. Errors keep the old value; refreshes then back off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proconsul.domain.errors import DomainError
from proconsul.domain.options import QueryMeta, QueryOptions
from proconsul.drivers.scope import TaskScope
from proconsul.federation.rate import RateLimiter
from proconsul.services.agent.cache_types import CacheType
from proconsul.util.clock import Rng
from proconsul.util.metrics import Metrics

ENTRIES_MAX = 10_000
"""Each may have a query open at a server; the least recently asked for goes first."""
BACKOFF_AFTER = 3
"""Failed refreshes before the next is delayed."""
BACKOFF_S_MAX = 60.0
CONNECTED_AFTER_S = 31.0
"""A refresh that is open for so long has reached a server: whoever lost contact has it again."""
_NS = 1_000_000_000

Rpc = Callable[[str, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class CacheMeta:
    """How an answer came about. `age_s` is how long it may be out of date."""

    hit: bool = False
    age_s: float = 0.0
    index: int = 0


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """`cache.entry_fetch_rate` (fetches per second, None is unlimited) and `entry_fetch_max_burst`."""

    fetch_rate: float | None = None
    fetch_burst: int = 2


class StaleOrDeadError(DomainError):
    """A first answer did not come in the time that the request gave."""

    def __init__(self) -> None:
        super().__init__("internal error: response type not correct")


@dataclass(slots=True)
class _Entry:
    kind: CacheType
    limiter: RateLimiter | None
    value: Any = None
    valid: bool = False
    index: int = 0
    error: Exception | None = None
    fetched_at: float | None = None
    lost_contact_at: float | None = None
    failures: int = 0
    expires_at: float = 0.0
    fetching: bool = False
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Cache:
    """`await get(type, request)`; background refreshes live in `scope`."""

    def __init__(
        self,
        rpc: Rpc,
        scope: TaskScope,
        rng: Rng,
        metrics: Metrics,
        options: CacheOptions,
    ) -> None:
        self._rpc, self._scope, self._rng, self._metrics = rpc, scope, rng, metrics
        self._options = options
        self._entries: dict[Hashable, _Entry] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def reconfigure(self, options: CacheOptions) -> None:
        """Take over new limits, for the entries that exist too."""
        if options != self._options:
            self._options = options
            for entry in self._entries.values():
                entry.limiter = self._limiter()

    async def get(self, kind: CacheType, request: Any) -> tuple[Any, CacheMeta]:
        """The answer to `request`, from memory if it may be. Raises what the servers answered.

        A `min_query_index` waits for a newer answer, for `max_query_time_ns` at most (0: for ever).
        """
        key = kind.key(request)
        loop = asyncio.get_running_loop()
        wait_ns = request.max_query_time_ns
        deadline = loop.time() + wait_ns / _NS if wait_ns > 0 else None
        revalidate, first = request.must_revalidate, True
        while True:
            entry = self._entries.get(key)
            if entry is not None and self._answers(entry, request, revalidate):
                return entry.value, self._hit(key, entry, first)
            if not first and entry is not None and entry.error is not None:
                raise entry.error
            if first:
                missed = "miss_block" if request.min_query_index else "miss_new"
                self._metrics.incr(f"consul.consul.cache.{kind.name}.{missed}", 1)
                first = False
            entry = self._fetch(key, kind, request)
            try:
                async with asyncio.timeout_at(deadline):
                    await entry.changed.wait()
            except TimeoutError:
                if entry.value is None:
                    raise StaleOrDeadError from None
                return entry.value, CacheMeta(index=entry.index)
            revalidate = False

    # -- one answer

    @staticmethod
    def _answers(entry: _Entry, request: QueryOptions, revalidate: bool) -> bool:
        """Whether what is remembered will do."""
        kind = entry.kind
        if not entry.valid:
            return False
        if kind.blocking and 0 < entry.index <= request.min_query_index:
            return False
        if kind.refresh:
            return True
        age = asyncio.get_running_loop().time() - (entry.fetched_at or 0.0)
        return not revalidate and not 0 < request.max_age_ns < age * _NS

    def _hit(self, key: Hashable, entry: _Entry, first: bool) -> CacheMeta:
        now = asyncio.get_running_loop().time()
        if first:
            self._metrics.incr(f"consul.consul.cache.{entry.kind.name}.hit", 1)
        since = entry.lost_contact_at if entry.kind.refresh else entry.fetched_at
        entry.expires_at = now + entry.kind.ttl_s
        self._entries[key] = self._entries.pop(key)
        return CacheMeta(first, 0.0 if since is None else now - since, entry.index)

    # -- fetching

    def _limiter(self) -> RateLimiter | None:
        rate = self._options.fetch_rate
        return None if rate is None else RateLimiter(rate, self._options.fetch_burst)

    def _fetch(self, key: Hashable, kind: CacheType, request: Any) -> _Entry:
        """Have the entry fetched, unless that is under way; its `changed` fires when it is done."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(kind, self._limiter())
            entry.expires_at = asyncio.get_running_loop().time() + kind.ttl_s
            self._make_room()
            self._sweep_at(entry.expires_at)
            self._metrics.gauge("consul.consul.cache.entries_count", len(self._entries))
        if not entry.fetching:
            entry.fetching = True
            if entry.task is not None:
                entry.task.cancel()  # it only waits for the time of its next refresh
            entry.task = self._scope.spawn(f"cache {kind.name}", self._follow(entry, request))
        return entry

    async def _follow(self, entry: _Entry, request: Any) -> None:
        """Fetch once, or refresh for as long as the entry lives."""
        while True:
            entry.fetching = True
            await self._fetch_once(entry, request)
            entry.fetching = False
            changed, entry.changed = entry.changed, asyncio.Event()
            changed.set()
            if not entry.kind.refresh:
                return
            if (delay := self._backoff_s(entry.failures)) > 0:
                await asyncio.sleep(delay)

    async def _fetch_once(self, entry: _Entry, request: Any) -> None:
        kind, loop = entry.kind, asyncio.get_running_loop()
        connected = None
        if kind.refresh and entry.index > 0:
            connected = loop.call_later(CONNECTED_AFTER_S, _in_contact, entry)
        try:
            if entry.limiter is not None:
                await entry.limiter.wait()
            value, index = await self._ask(entry, request)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who ask
            entry.error = error
            entry.failures += 1
            if kind.refresh and entry.lost_contact_at is None:
                entry.lost_contact_at = loop.time()
            self._count(kind, "fetch_error")
        else:
            entry.error = None
            entry.failures = 0 if index > 0 else entry.failures + 1
            entry.lost_contact_at = None
            entry.value, entry.index, entry.valid = value, max(index, 1), True
            entry.fetched_at = loop.time()
            self._count(kind, "fetch_success")
        finally:
            if connected is not None:
                connected.cancel()

    async def _ask(self, entry: _Entry, request: Any) -> tuple[Any, int]:
        """The servers' answer and its index (0: it has none)."""
        kind = entry.kind
        changes: dict[str, Any] = {"allow_stale": True} if kind.allow_stale else {}
        if kind.blocking:
            changes["min_query_index"] = entry.index
            changes["max_query_time_ns"] = int(kind.query_timeout_s * _NS)
        asked = msgspec.structs.replace(request, **changes) if changes else request
        value = await self._rpc(kind.method, asked)
        return value, value.index if isinstance(value, QueryMeta) else 0

    def _count(self, kind: CacheType, what: str) -> None:
        self._metrics.incr(f"consul.consul.cache.{what}", 1)
        self._metrics.incr(f"consul.consul.cache.{kind.name}.{what}", 1)

    def _backoff_s(self, failures: int) -> float:
        if failures <= BACKOFF_AFTER:
            return 0.0
        delay = min(float(1 << min(failures - BACKOFF_AFTER, 30)), BACKOFF_S_MAX)
        return delay + self._rng.uniform(0, delay)

    # -- the end of entries

    def _make_room(self) -> None:
        while len(self._entries) > ENTRIES_MAX:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: Hashable) -> None:
        entry = self._entries.pop(key)
        if entry.task is not None:
            entry.task.cancel()
        entry.changed.set()

    def _sweep_at(self, when: float) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        self._sweep = None
        now = asyncio.get_running_loop().time()
        for key in [key for key, entry in self._entries.items() if entry.expires_at <= now]:
            self._metrics.incr("consul.consul.cache.evict_expired", 1)
            self._forget(key)
        self._metrics.gauge("consul.consul.cache.entries_count", len(self._entries))
        if self._entries:
            self._sweep_at(min(entry.expires_at for entry in self._entries.values()))

    def close(self) -> None:
        """Forget everything; tasks end with their scope."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._entries.clear()


def _in_contact(entry: _Entry) -> None:
    entry.lost_contact_at = None
