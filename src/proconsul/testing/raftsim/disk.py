"""A server's disk: what is durable, and how writing can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proconsul.core.raft.types import HardState, Output, SnapshotMeta
from proconsul.util.clock import Rng
from proconsul.wire.raft import Entry


@dataclass(frozen=True, slots=True)
class Image:
    """A snapshot: where it ends, the keys' values then, the digest of all entries up to there."""

    meta: SnapshotMeta
    values: dict[str, bytes]
    digest: int


class SimDisk:
    """Survives crashes. A `LogStore` for the machine that boots from it.

    Outputs become durable in order and each as a whole; a crash keeps any number of those that
    were being written.
    """

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._entries: dict[int, Entry] = {}
        self._first = self._last = 0
        self.hard = HardState()
        self.image: Image | None = None
        self.slowness = 1.0
        """Factor on the time of a write."""
        self.full = False
        """Writes find no room, and are tried again."""
        self.failing = False
        """The next sync fails; the server must halt, for it cannot know what is durable."""

    def write_s(self) -> float:
        """How long the next sync takes."""
        return self._rng.uniform(0.0002, 0.01) * self.slowness

    def write(self, outputs: Sequence[Output]) -> None:
        """Make durable what the outputs ask for, in order."""
        for out in outputs:
            if out.hard_state is not None:
                self.hard = out.hard_state
            if out.truncate_from:
                for index in range(max(out.truncate_from, self._first), self._last + 1):
                    del self._entries[index]
                self._last = min(self._last, out.truncate_from - 1)
                if self._last < self._first:
                    self._first = self._last = 0
            for entry in out.append:
                assert not self._last or entry.index == self._last + 1, "a hole in the log"
                self._entries[entry.index] = entry
                self._last = entry.index
                self._first = self._first or entry.index
            if out.delete_to and self._first:
                for index in range(self._first, min(out.delete_to, self._last) + 1):
                    del self._entries[index]
                self._first = max(self._first, out.delete_to + 1)
                if self._first > self._last:
                    self._first = self._last = 0

    def crashed(self, writing: Sequence[Output]) -> None:
        """Power was lost during a write: any number of its outputs is on the disk."""
        self.write(writing[: self._rng.randint(0, len(writing))])

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry at `index` with `term` would survive a crash now."""
        if self.image is not None and self.image.meta.index >= index:
            # One from outside that no quorum got may end behind entries of later terms
            return self.image.meta.term >= term
        entry = self._entries.get(index)
        return entry is not None and entry.term == term

    def last(self) -> tuple[int, int]:
        """(term, index) of the last durable entry, by which votes are decided after a crash."""
        last = (self._entries[self._last].term, self._last) if self._last else (0, 0)
        meta = self.image.meta if self.image is not None else None
        if meta is not None and (meta.index >= self._last or meta.term > last[0]):
            return meta.term, meta.index
        return last

    # -- LogStore

    def first_index(self) -> int:
        """The first entry's index, 0 if there is none."""
        return self._first

    def last_index(self) -> int:
        """The last entry's index, 0 if there is none."""
        return self._last

    def get(self, index: int) -> Entry | None:
        """The durable entry at `index`."""
        return self._entries.get(index)
