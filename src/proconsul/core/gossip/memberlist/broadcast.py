"""The transmit-limited queue: rumours spread a bounded number of times, fresh ones first."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable


def retransmit_limit(mult: int, nodes: int) -> int:
    """How often one rumour is sent in a cluster of `nodes`."""
    return mult * math.ceil(math.log10(nodes + 1))


class Broadcast:
    """One queued message. `finished` is called once: sent often enough, replaced or pruned."""

    __slots__ = ("finished", "key", "message", "name", "transmits")

    def __init__(
        self, name: str, message: bytes, finished: Callable[[], None] | None, key: tuple[int, int]
    ) -> None:
        self.name = name
        self.message = message
        self.finished = finished
        self.key = key
        self.transmits = 0


class BroadcastQueue:
    """Ordered by transmits so far, then the longest first, then the newest first.

    A broadcast with a name replaces an earlier one of that name.
    """

    __slots__ = ("_by_name", "_cluster_size", "_limit", "_mult", "_serial", "_size", "_tiers")

    def __init__(self, cluster_size: Callable[[], int], retransmit_mult: int) -> None:
        """`cluster_size` is asked how many nodes there are."""
        self._cluster_size = cluster_size
        self._mult = retransmit_mult
        # Tier t holds what was sent t times, as (-length, -serial, broadcast).
        self._tiers: list[list[tuple[int, int, Broadcast]]] = []
        self._by_name: dict[str, Broadcast] = {}
        self._serial = 0
        self._size = 0
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
                _finish(old)
        self._serial += 1
        broadcast = Broadcast(name, message, finished, (-len(message), -self._serial))
        if name:
            self._by_name[name] = broadcast
        self._insert(broadcast)

    def get(self, overhead: int, limit: int) -> list[bytes]:
        """Messages that fit into `limit` bytes, each costing `overhead` more than its length."""
        if not self._size:
            return []
        transmit_limit = self._transmit_limit()
        chosen: list[bytes] = []
        again: list[Broadcast] = []
        free = limit - overhead
        for tier in self._tiers:
            # The longest that fits; what follows in the tier is shorter, or older.
            while tier and free > 0:
                index = bisect_left(tier, (-free,))
                if index == len(tier):
                    break
                broadcast = tier.pop(index)[2]
                self._size -= 1
                message = broadcast.message
                free -= overhead + len(message)
                chosen.append(message)
                broadcast.transmits += 1
                if broadcast.transmits >= transmit_limit:
                    self._forget_name(broadcast)
                    _finish(broadcast)
                else:
                    again.append(broadcast)
            if free <= 0:
                break
        for broadcast in again:
            self._insert(broadcast)
        return chosen

    def prune(self, keep: int) -> None:
        """Drop the most sent, shortest, oldest until `keep` are left."""
        while self._size > keep:
            tier = next(tier for tier in reversed(self._tiers) if tier)
            broadcast = tier.pop()[2]
            self._size -= 1
            self._forget_name(broadcast)
            _finish(broadcast)

    def _transmit_limit(self) -> int:
        nodes = self._cluster_size()
        if self._limit[0] != nodes:
            self._limit = nodes, retransmit_limit(self._mult, nodes)
        return self._limit[1]

    def _insert(self, broadcast: Broadcast) -> None:
        tiers = self._tiers
        while len(tiers) <= broadcast.transmits:
            tiers.append([])
        insort(tiers[broadcast.transmits], (*broadcast.key, broadcast))
        self._size += 1

    def _remove(self, broadcast: Broadcast) -> None:
        tier = self._tiers[broadcast.transmits]
        del tier[bisect_left(tier, broadcast.key)]
        self._size -= 1
        self._forget_name(broadcast)

    def _forget_name(self, broadcast: Broadcast) -> None:
        if broadcast.name:
            del self._by_name[broadcast.name]


def _finish(broadcast: Broadcast) -> None:
    finished = broadcast.finished
    if finished is not None:
        broadcast.finished = None
        finished()
