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

    __slots__ = ("entry", "finished", "message", "name", "transmits")

    def __init__(
        self, name: str, message: bytes, finished: Callable[[], None] | None, serial: int
    ) -> None:
        self.name = name
        self.message = message
        self.finished = finished
        self.transmits = 0
        self.entry: _Entry = (-len(message), -serial, self)
        """Its place within a tier; the serial is unique, so broadcasts are never compared."""


_Entry = tuple[int, int, Broadcast]


class BroadcastQueue:
    """Ordered by transmits so far, then the longest first, then the newest first.

    A broadcast with a name replaces an earlier one of that name.
    """

    __slots__ = ("_by_name", "_cluster_size", "_limit", "_mult", "_serial", "_size", "_tiers")

    def __init__(self, cluster_size: Callable[[], int], retransmit_mult: int) -> None:
        """`cluster_size` is asked how many nodes there are."""
        self._cluster_size = cluster_size
        self._mult = retransmit_mult
        # Tier t holds, sorted, what was sent t times.
        self._tiers: list[list[_Entry]] = []
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
                tier = self._tiers[old.transmits]
                del tier[bisect_left(tier, old.entry)]
                self._size -= 1
                self._drop(old)
        self._serial += 1
        broadcast = Broadcast(name, message, finished, self._serial)
        if name:
            self._by_name[name] = broadcast
        if not self._tiers:
            self._tiers.append([])
        insort(self._tiers[0], broadcast.entry)
        self._size += 1

    def get(self, overhead: int, limit: int) -> list[bytes]:
        """Messages that fit into `limit` bytes, each costing `overhead` more than its length."""
        if not self._size:
            return []
        chosen: list[bytes] = []
        moves: list[tuple[int, list[_Entry]]] = []
        free = limit - overhead
        for level, tier in enumerate(self._tiers):
            if free <= 0:
                break
            if not tier:
                continue
            # Runs of neighbours that all fit: the longest that fits, then shorter or older ones.
            start = 0
            while free > 0:
                if -tier[start][0] > free:
                    start = bisect_left(tier, (-free,), start)
                end, size = start, len(tier)
                while end < size and -tier[end][0] <= free:
                    message = tier[end][2].message
                    free -= overhead + len(message)
                    chosen.append(message)
                    end += 1
                if end > start:
                    moves.append((level, tier[start:end]))
                    del tier[start:end]
                if start >= len(tier):
                    break
        for level, entries in moves:
            self._sent(level, entries)
        return chosen

    def prune(self, keep: int) -> None:
        """Drop the most sent, shortest, oldest until `keep` are left."""
        while self._size > keep:
            tier = next(tier for tier in reversed(self._tiers) if tier)
            broadcast = tier.pop()[2]
            self._size -= 1
            self._drop(broadcast)

    def _sent(self, level: int, entries: list[_Entry]) -> None:
        """Move what was just taken from tier `level` to the next, or out."""
        level += 1
        if level >= self._transmit_limit():
            self._size -= len(entries)
            for entry in entries:
                self._drop(entry[2])
            return
        for entry in entries:
            entry[2].transmits = level
        if level == len(self._tiers):
            self._tiers.append(entries)
            return
        tier = self._tiers[level]
        if len(tier) > 8 * len(entries):
            for entry in entries:
                insort(tier, entry)
        else:
            tier += entries
            tier.sort()

    def _transmit_limit(self) -> int:
        nodes = self._cluster_size()
        if self._limit[0] != nodes:
            self._limit = nodes, retransmit_limit(self._mult, nodes)
        return self._limit[1]

    def _drop(self, broadcast: Broadcast) -> None:
        if broadcast.name:
            del self._by_name[broadcast.name]
        finished = broadcast.finished
        if finished is not None:
            broadcast.finished = None
            finished()
