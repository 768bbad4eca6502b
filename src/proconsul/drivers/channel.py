"""A bounded queue between tasks that states what happens when it is full."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum, auto
from typing import Generic, TypeVar

T = TypeVar("T")


class Overflow(Enum):
    """What `Channel.put_nowait` does when the channel is full."""

    DROP_OLDEST = auto()
    DROP_NEWEST = auto()


class Channel(Generic[T]):
    """Many producers, one consumer. Never grows beyond `bound`; counts what it dropped."""

    def __init__(self, bound: int, policy: Overflow = Overflow.DROP_OLDEST) -> None:
        self._items: deque[T] = deque()
        self._bound, self._policy = bound, policy
        self._ready = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put_nowait(self, item: T) -> bool:
        """Enqueue; False if something had to be dropped for it, or it was dropped itself."""
        full = len(self._items) >= self._bound
        if full:
            self.dropped += 1
            if self._policy is Overflow.DROP_NEWEST:
                return False
            self._items.popleft()
        self._items.append(item)
        self._ready.set()
        return not full

    async def wait(self) -> None:
        """Return once there is an item to get; takes nothing."""
        while not self._items:
            self._ready.clear()
            await self._ready.wait()

    async def get(self) -> T:
        """The oldest item, waiting for one."""
        await self.wait()
        return self._items.popleft()
