"""Blocking queries: answer when the index moves past what the caller has seen, or in time.

Consul's `blockingQuery` (agent/consul/rpc.go): an answer's index is never 0; the wait is bounded by
the server's maximum and gets up to 1/16 of jitter, so that a crowd does not return at one instant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from proconsul.util.clock import Rng

T = TypeVar("T")

JITTER_FRACTION = 16


class Watch(Protocol):
    """The state's promise to call back once, after a commit that may change the answer."""

    @property
    def generation(self) -> int:
        """Changes when the whole state is replaced: indexes no longer compare."""
        ...

    def add(self, callback: Callable[[], None]) -> None: ...
    def cancel(self, callback: Callable[[], None]) -> None: ...


Query = Callable[[], tuple[int, T, Watch]]
"""Evaluates synchronously to (index, value, watch)."""


@dataclass(frozen=True, slots=True)
class BlockingLimits:
    """Seconds."""

    default_s: float = 300.0
    max_s: float = 600.0


def wait_s(requested_ns: int, limits: BlockingLimits, rng: Rng) -> float:
    """How long a blocking query may wait, jitter included."""
    base = min(requested_ns / 1e9, limits.max_s) if requested_ns > 0 else limits.default_s
    return base + rng.uniform(0, base / JITTER_FRACTION)


async def block(query: Query[T], min_index: int, timeout_s: float) -> tuple[int, T]:
    """Evaluate `query` until its index exceeds `min_index` (0: once), or the time is over.

    A restore ends the wait whatever index it brings: the state behind it is another.
    """
    index, value, watch = query()
    generation = watch.generation
    if min_index == 0 or index > min_index:
        return max(index, 1), value
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        changed: asyncio.Future[None] = loop.create_future()

        def wake(changed: asyncio.Future[None] = changed) -> None:
            if not changed.done():
                changed.set_result(None)

        watch.add(wake)
        try:
            async with asyncio.timeout_at(deadline):
                await changed
        except TimeoutError:
            return max(index, 1), value
        finally:
            watch.cancel(wake)
        index, value, watch = query()
        if index > min_index or watch.generation != generation:
            return max(index, 1), value
