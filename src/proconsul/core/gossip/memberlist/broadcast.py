"""The transmit-limited queue: rumours spread a bounded number of times, fresh ones first."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable


def retransmit_limit(mult: int, nodes: int) -> int:
    """How often one rumour is sent in a cluster of `nodes`."""
    return mult * math.ceil(math.log10(nodes + 1))


class Broadcast:
    """One queued message. `finished` is called once: sent often enough, replaced or pruned."""

    __slots__ = ("finished", "message", "name", "serial", "transmits")

    def __init__(
        self, name: str, message: bytes, finished: Callable[[], None] | None, serial: int
    ) -> None:
        self.name = name
        self.message = message
        self.finished = finished
        self.serial = serial
        self.transmits = 0


class _Tier:
    """What was sent equally often: buckets by length, in each the latest comer last.

    Buckets make moving a broadcast to the next tier O(1), which is what a busy queue does most.
    """

    __slots__ = ("buckets", "lengths")

    def __init__(self) -> None:
        self.buckets: dict[int, dict[int, Broadcast]] = {}
        self.lengths: list[int] = []
        """Negated keys of `buckets`, sorted: the longest first."""

    def add(self, broadcast: Broadcast) -> None:
        length = len(broadcast.message)
        bucket = self.buckets.get(length)
        if bucket is None:
            bucket = self.buckets[length] = {}
            insort(self.lengths, -length)
        bucket[broadcast.serial] = broadcast

    def take(self, free: int, overhead: int, taken: list[Broadcast]) -> int:
        """Move what fits, the longest first, to `taken`; returns what is free then."""
        for negated in self.lengths:
            length = -negated
            if length <= free:
                bucket = self.buckets[length]
                while bucket and length <= free:
                    taken.append(bucket.popitem()[1])
                    free -= length + overhead
                if free <= 0:
                    break
        return free

    def last(self) -> Broadcast | None:
        """The shortest, oldest."""
        for negated in reversed(self.lengths):
            bucket = self.buckets[-negated]
            if bucket:
                return next(iter(bucket.values()))
        return None


class BroadcastQueue:
    """Ordered by transmits so far, then the longest first, then the latest first.

    A broadcast with a name replaces an earlier one of that name.
    """

    __slots__ = (
        "_by_name",
        "_cluster_size",
        "_limit",
        "_mult",
        "_serial",
        "_shortest",
        "_size",
        "_tiers",
    )

    def __init__(self, cluster_size: Callable[[], int], retransmit_mult: int) -> None:
        """`cluster_size` is asked how many nodes there are."""
        self._cluster_size = cluster_size
        self._mult = retransmit_mult
        # Tier t holds what was sent t times.
        self._tiers: list[_Tier] = []
        self._by_name: dict[str, Broadcast] = {}
        self._serial = 0
        self._size = 0
        self._shortest = 0
        """No queued message is shorter than this: what has less room free need not look."""
        self._limit = (0, 0)

    def __len__(self) -> int:
        return self._size

    def queue(
        self, message: bytes, name: str = "", finished: Callable[[], None] | None = None
    ) -> None:
        """Add a message; an empty name replaces nothing."""
        if name:
            old = self._by_name.get(name)
            if old is not None:
                self._remove(old)
        self._serial += 1
        broadcast = Broadcast(name, message, finished, self._serial)
        if name:
            self._by_name[name] = broadcast
        self._tier(0).add(broadcast)
        self._shortest = min(self._shortest, len(message)) if self._size else len(message)
        self._size += 1

    def get(self, overhead: int, limit: int) -> list[bytes]:
        """Messages that fit into `limit` bytes, each costing `overhead` more than its length."""
        if not self._size:
            return []
        taken: list[Broadcast] = []
        free = limit - overhead
        for tier in self._tiers:
            if free <= 0 or free < self._shortest:
                break
            free = tier.take(free, overhead, taken)
        transmit_limit = self._transmit_limit()
        for broadcast in taken:
            broadcast.transmits += 1
            if broadcast.transmits < transmit_limit:
                self._tier(broadcast.transmits).add(broadcast)
            else:
                self._size -= 1
                self._finish(broadcast)
        if not self._size:
            self._tiers.clear()
        return [broadcast.message for broadcast in taken]

    def prune(self, keep: int) -> None:
        """Drop the most sent, shortest, oldest until `keep` are left."""
        for tier in reversed(self._tiers):
            while self._size > keep:
                broadcast = tier.last()
                if broadcast is None:
                    break
                self._remove(broadcast)

    def _tier(self, transmits: int) -> _Tier:
        tiers = self._tiers
        while len(tiers) <= transmits:
            tiers.append(_Tier())
        return tiers[transmits]

    def _remove(self, broadcast: Broadcast) -> None:
        bucket = self._tiers[broadcast.transmits].buckets[len(broadcast.message)]
        del bucket[broadcast.serial]
        self._size -= 1
        self._finish(broadcast)

    def _transmit_limit(self) -> int:
        nodes = self._cluster_size()
        if self._limit[0] != nodes:
            self._limit = nodes, retransmit_limit(self._mult, nodes)
        return self._limit[1]

    def _finish(self, broadcast: Broadcast) -> None:
        if broadcast.name:
            del self._by_name[broadcast.name]
        finished = broadcast.finished
        if finished is not None:
            broadcast.finished = None
            finished()
