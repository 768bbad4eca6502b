"""Feeds committed entries to the state machine, in order, and answers those who wait for them.

`Fsm.apply` is one synchronous call per entry. A long backlog is worked off in slices, between which
the event loop runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol

from proconsul.core.raft.membership import of_entry
from proconsul.core.raft.types import LeadershipLost, RaftError, SnapshotMeta
from proconsul.wire.raft import Configuration, LogType

if TYPE_CHECKING:
    from proconsul.core.raft.log import Log
    from proconsul.drivers.raft.snapshots import Snapshot
    from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.raft")

_END = object()
SLICE_S = 0.005
"""How long applying may keep the event loop to itself."""


Replace = Callable[[], Iterator[None]]
"""Puts a restored state into place; returns the steps that free the old one, to be drawn in time."""


class Fsm(Protocol):
    """The replicated state machine."""

    def apply(self, index: int, data: bytes, extensions: bytes = b"", term: int = 0) -> object:
        """Apply one command; what it returns is what the caller of `RaftNode.apply` gets.

        `extensions` and `term` are the log entry's: leaders of other makes split large commands
        and say in the extensions which part an entry is.

        Must be deterministic. An exception means this server can no longer follow the others, and
        halts its Raft; a command that fails for everyone returns its error instead.
        """
        ...

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, in chunks. Entries are applied while the chunks are drawn, so
        the iterator must hold on to the old state. Chunks are drawn on the event loop."""
        ...

    def restore(self, reader: BinaryIO) -> Generator[None, None, Replace]:
        """Read a snapshot beside the state, a few milliseconds a step; all steps run on the event
        loop. Returns what puts it into the state's place. An exception leaves the state as it is."""
        ...


class Applier:
    """Where the state machine stands, and who waits for which index."""

    def __init__(self, fsm: Fsm, on_failure: Callable[[Exception], None], metrics: Metrics) -> None:
        self._fsm, self._metrics = fsm, metrics
        self._on_failure = on_failure
        self._log: Log | None = None
        self._commit = 0
        self._scheduled: asyncio.Handle | None = None
        self._waiting: dict[int, tuple[int, asyncio.Future[object]]] = {}
        """index -> the term of the entry that is waited for, and who waits."""
        self.index = self.term = 0
        """The last entry applied."""
        self.configuration, self.configuration_index = Configuration(), 0
        """The members as of `index`."""

    def start(self, raft_log: Log) -> None:
        """Read entries from here from now on."""
        self._log = raft_log

    async def load(self, reader: BinaryIO) -> Replace:
        """Read a snapshot while the event loop goes on; nothing changes before `restore`."""
        clock = asyncio.get_running_loop().time
        started = clock()
        steps = self._fsm.restore(reader)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                self._metrics.sample("consul.raft.fsm.restore", (clock() - started) * 1000)
                replace: Replace = done.value
                return replace
            await asyncio.sleep(0)

    def restore(self, snapshot: Snapshot, replace: Replace) -> None:
        """Jump to a snapshot that was loaded: back also, if what was here is no quorum's history."""
        _draw(replace())
        meta = snapshot.meta
        self.index, self.term = meta.index, meta.term
        self.configuration, self.configuration_index = meta.configuration, meta.configuration_index
        until, self._commit = max(self._commit, meta.index), meta.index
        for index in [i for i in self._waiting if i <= until]:
            _fail(self._waiting.pop(index)[1], LeadershipLost())

    def meta(self) -> SnapshotMeta:
        """What a snapshot taken now covers."""
        return SnapshotMeta(self.index, self.term, self.configuration, self.configuration_index)

    def snapshot(self) -> Iterator[bytes]:
        """The state as of `index`, in chunks."""
        return self._fsm.snapshot()

    def wait(self, index: int, future: asyncio.Future[object]) -> None:
        """`future` gets what applying the entry that is at `index` now returns.

        A later leader may have put another there by the time it is committed, in the very step that
        makes this server a follower: then it is `LeadershipLost`.
        """
        assert self._log is not None
        self._waiting[index] = (self._log.term(index), future)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def pending(self) -> int:
        """Committed entries that are not applied yet."""
        return self._commit - self.index

    def lost_leadership(self) -> None:
        """Proposals that are not committed are undecided now."""
        self.give_up(LeadershipLost())

    def give_up(self, error: RaftError) -> None:
        """Nobody is to wait any more for what is not committed yet."""
        for index in [i for i in self._waiting if i > self._commit]:
            _fail(self._waiting.pop(index)[1], error)

    def fail_all(self, error: Exception) -> None:
        """Nothing will be applied any more."""
        for _, future in self._waiting.values():
            _fail(future, error)
        self._waiting.clear()
        if self._scheduled is not None:
            self._scheduled.cancel()

    def committed(self, index: int) -> None:
        """Apply up to `index`: at once, as far as that fits into a slice of time."""
        self._commit = max(self._commit, index)
        if self._scheduled is None:
            self._run()

    def _run(self) -> None:
        self._scheduled = None
        loop = asyncio.get_running_loop()
        started, first = loop.time(), self.index
        until = started + SLICE_S
        assert self._log is not None
        try:
            while self.index < self._commit:
                self._apply(self._log)
                if loop.time() > until and self.index < self._commit:
                    self._scheduled = loop.call_soon(self._run)
                    return
        except Exception as error:
            log.exception("raft halted: entry %d cannot be applied", self.index + 1)
            self._on_failure(error)
        finally:
            if self.index > first:
                took_ms = (loop.time() - started) * 1000
                self._metrics.sample("consul.raft.fsm.applyBatch", took_ms)
                self._metrics.sample("consul.raft.fsm.applyBatchNum", self.index - first)

    def _apply(self, raft_log: Log) -> None:
        index = self.index + 1
        entry = raft_log.get(index)
        result: object = None
        if entry.type is LogType.COMMAND:
            result = self._fsm.apply(index, entry.data, entry.extensions, entry.term)
        elif (configuration := of_entry(entry)) is not None:
            self.configuration, self.configuration_index = configuration, index
        self.index, self.term = index, entry.term
        expected, future = self._waiting.pop(index, (0, None))
        if future is None or future.done():
            return
        if entry.term == expected:
            future.set_result(result)
        else:
            _fail(future, LeadershipLost())


def _draw(steps: Iterator[None]) -> None:
    """One step now, the next one when the loop has been round."""
    if next(steps, _END) is not _END:
        asyncio.get_running_loop().call_soon(_draw, steps)


def _fail(future: asyncio.Future[object], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever gave up waiting need not be told about
