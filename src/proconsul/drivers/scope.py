"""Structured concurrency: the one place that spawns tasks.

A `TaskScope` owns the tasks of one connection, one request or one agent and ends with all of them
finished. A supervised loop is named, counted, and restarted with bounded backoff when it raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

log = logging.getLogger("proconsul.supervisor")

RESTART_DELAY_S_MIN = 0.1
RESTART_DELAY_S_MAX = 5.0


class TaskScope:
    """`async with TaskScope("rpc") as scope: scope.spawn("reader", read())`.

    Leaving the block cancels what still runs and waits for it. A task that raises is logged with
    its name and does not take its siblings down: whoever needs that awaits the task `spawn` returns.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.restarts: Counter[str] = Counter()
        """Restarts of supervised loops, by name."""

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` until it ends or the scope closes."""
        if self._closed:
            work.close()
            raise RuntimeError(f"scope {self.name!r} is closed, cannot spawn {name!r}")
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def supervise(self, name: str, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `loop()`; when it raises, log and run it again after 0.1 s doubling to 5 s.

        A loop that returns is finished and is not restarted.
        """
        return self.spawn(name, self._supervised(name, loop))

    async def _supervised(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        delay = RESTART_DELAY_S_MIN
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                await loop()
                return
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("loop %s/%s failed, restarting in %.1f s", self.name, name, delay)
            self.restarts[name] += 1
            if clock() - started > RESTART_DELAY_S_MAX:
                delay = RESTART_DELAY_S_MIN
            await asyncio.sleep(delay)
            delay = min(delay * 2, RESTART_DELAY_S_MAX)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed: %r", task.get_name(), error, exc_info=error)

    async def aclose(self) -> None:
        """Cancel every task and wait until all have ended."""
        self._closed = True
        current = asyncio.current_task()
        while pending := [task for task in self._tasks if task is not current]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
