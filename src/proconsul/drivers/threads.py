"""Blocking calls of libraries that cannot be interrupted, on threads that may be left behind.

asyncio's own executor is shared by everything and waited for when a process ends: a call that hangs
in somebody's HTTP library would delay the rest, and keep an agent from stopping.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from proconsul.util.errors import ProconsulError

T = TypeVar("T")


class ThreadsBusyError(ProconsulError):
    """As many calls as allowed have not come back."""


class AbandonableThreads:
    """Runs each call on a daemon thread of its own, at most `limit` at once.

    A caller that is cancelled leaves its thread to itself; it counts until the call returns.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self._running = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What `call()` returns or raises. Raises `ThreadsBusyError` instead of waiting."""
        if self._running >= self.limit:
            raise ThreadsBusyError(f"{self._running} earlier calls have not been answered")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: Exception | None) -> None:
            self._running -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: T | None = None
            failure: Exception | None = None
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 - raised again where it is awaited
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime
                loop.call_soon_threadsafe(deliver, result, failure)

        self._running += 1
        threading.Thread(target=work, name=self.name, daemon=True).start()
        return await future
