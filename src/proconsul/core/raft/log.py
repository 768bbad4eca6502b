"""The log as the machine sees it: entries still in memory in front of a store that reads them back.

Entries that are not durable yet are always in memory; behind them a bounded tail of recent ones is
kept, which is what replication and apply read in normal operation.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from proconsul.core.raft.types import RaftError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proconsul.wire.raft import Entry

CACHE_ENTRIES_MAX = 512
CACHE_BYTES_MAX = 8 << 20


class Compacted(RaftError):
    """The entry is gone (a snapshot holds it), or never was."""


class LogStore(Protocol):
    """Reads durable entries. Only indexes that were made durable are asked for."""

    def first_index(self) -> int: ...
    def last_index(self) -> int: ...
    def get(self, index: int) -> Entry | None: ...


class Log:
    """Indexes `first_index..last_index`; a snapshot stands for everything up to `snapshot_index`.

    Invariant: `snapshot_index >= first_index - 1`: every index is readable or snapshotted.
    """

    def __init__(self, store: LogStore, snapshot_index: int = 0, snapshot_term: int = 0) -> None:
        self._store = store
        self._tail: deque[Entry] = deque()
        self._tail_bytes = 0
        self.snapshot_index, self.snapshot_term = snapshot_index, snapshot_term
        self.first_index, self.last_index = store.first_index(), store.last_index()
        self.durable_index = self.last_index
        if self.last_index == 0:
            self.first_index, self.last_index = snapshot_index + 1, snapshot_index
            self.durable_index = snapshot_index
        elif self.first_index > snapshot_index + 1 and not self._is_older():
            raise Compacted(
                f"raft log starts at {self.first_index}, the latest intact snapshot ends at "
                f"{snapshot_index}: what was between is lost; restore the raft directory from a "
                "backup, or move it away to let this server fetch its state from the other servers"
            )
        self.last_term = self.term(self.last_index)

    def discard_needed(self) -> bool:
        """Whether the store contradicts the snapshot or ends before it (a crash in between)."""
        if self.last_index < self.snapshot_index:
            return True
        if self._is_older():
            return True
        return (
            self.first_index <= self.snapshot_index
            and self.get(self.snapshot_index).term != self.snapshot_term
        )

    def _is_older(self) -> bool:
        """Whether the log is of terms before the snapshot's, and so of another history.

        It followed a snapshot from outside that no quorum got, and that has been replaced since.
        """
        last = self._store.get(self._store.last_index())
        return last is not None and last.term < self.snapshot_term

    def get(self, index: int) -> Entry:
        """The entry at `index`, or `Compacted`."""
        if not self.first_index <= index <= self.last_index:
            raise Compacted(f"log not found: {index}")
        tail = self._tail
        if tail and index >= (first := tail[0].index):
            return tail[index - first]
        entry = self._store.get(index)
        if entry is None:
            raise Compacted(f"log not found: {index}")
        return entry

    def term(self, index: int) -> int:
        """The term at `index` (0 for index 0), or `Compacted`."""
        if index == self.snapshot_index:
            return self.snapshot_term
        if index == 0:
            return 0
        return self.get(index).term

    def contains(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is in the log itself, with this term."""
        return self.first_index <= index <= self.last_index and self.get(index).term == term

    def slice(self, first: int, last: int, count_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from `first` to at most `last`, within both bounds but at least one."""
        entries: list[Entry] = []
        size = 0
        for index in range(first, min(last, first + count_max - 1) + 1):
            entry = self.get(index)
            size += len(entry.data)
            if entries and size > bytes_max:
                break
            entries.append(entry)
        return tuple(entries)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries right behind `last_index`."""
        self._tail.extend(entries)
        self._tail_bytes += sum(len(entry.data) for entry in entries)
        self.last_index, self.last_term = entries[-1].index, entries[-1].term

    def truncate(self, first: int) -> None:
        """Forget `first` and everything behind it."""
        while self._tail and self._tail[-1].index >= first:
            self._tail_bytes -= len(self._tail.pop().data)
        self.last_index = first - 1
        self.durable_index = min(self.durable_index, self.last_index)
        self.last_term = self.term(self.last_index)

    def made_durable(self, index: int) -> None:
        """Entries up to `index` can be read from the store from now on."""
        self.durable_index = max(self.durable_index, min(index, self.last_index))
        tail = self._tail
        while tail and tail[0].index <= self.durable_index:
            if len(tail) <= CACHE_ENTRIES_MAX and self._tail_bytes <= CACHE_BYTES_MAX:
                break
            self._tail_bytes -= len(tail.popleft().data)

    def compact(self, snapshot_index: int, snapshot_term: int, trailing: int) -> int:
        """A snapshot is durable: keep `trailing` entries. Returns up to where to delete, or 0."""
        self.snapshot_index, self.snapshot_term = snapshot_index, snapshot_term
        upto = min(snapshot_index, self.last_index - trailing, self.durable_index)
        if upto < self.first_index:
            return 0
        self.first_index = upto + 1
        while self._tail and self._tail[0].index <= upto:
            self._tail_bytes -= len(self._tail.popleft().data)
        return upto

    def restore(self, snapshot_index: int, snapshot_term: int) -> None:
        """A snapshot replaces the whole log."""
        self._tail.clear()
        self._tail_bytes = 0
        self.snapshot_index, self.snapshot_term = snapshot_index, snapshot_term
        self.first_index, self.last_index = snapshot_index + 1, snapshot_index
        self.durable_index, self.last_term = snapshot_index, snapshot_term


class MemoryLogStore:
    """Entries in a dict: the twin of the durable store, for `-dev` servers and tests."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.index: entry for entry in entries}

    def first_index(self) -> int:
        return min(self._entries, default=0)

    def last_index(self) -> int:
        return max(self._entries, default=0)

    def get(self, index: int) -> Entry | None:
        return self._entries.get(index)

    def append(self, entries: Sequence[Entry]) -> None:
        self._entries.update((entry.index, entry) for entry in entries)

    def delete(self, first: int, last: int) -> None:
        """Delete `first..last`, both included; what is not there is no error."""
        for index in [i for i in self._entries if first <= i <= last]:
            del self._entries[index]
