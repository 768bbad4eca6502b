"""Taking, sending and receiving snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from proconsul.core.raft.types import LeadershipLost, RaftError, Role, Send, SnapshotMeta
from proconsul.drivers.raft.snapshots import (
    FileSnapshotStore,
    NotTakenBack,
    Sink,
    Snapshot,
    SnapshotError,
)
from proconsul.util.errors import ProconsulError
from proconsul.wire.raft import (
    SNAPSHOT_VERSION,
    Configuration,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Response,
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)

if TYPE_CHECKING:
    from proconsul.drivers.raft.applier import Replace
    from proconsul.drivers.raft.engine import Engine
    from proconsul.util.clock import Rng

log = logging.getLogger("proconsul.raft")

T = TypeVar("T")

INDEX_END = 1 << 62
"""Snapshots from outside must end before it: the log goes on behind them, in 64 bits."""
_CHUNK_BYTES = 1 << 20
_DRAW_BYTES = 256 << 10
"""How much of a snapshot is encoded at once: about a millisecond."""


class Snapshotter:
    """The snapshots of one node."""

    def __init__(self, engine: Engine, store: FileSnapshotStore, rng: Rng) -> None:
        self._engine, self._store, self._rng = engine, store, rng
        self._busy = asyncio.Lock()
        self._receiving: tuple[int, asyncio.Task[object]] | None = None
        """The leader's term, and what receives its snapshot."""

    async def loop(self) -> None:
        """Take a snapshot whenever enough entries are newer than the last one."""
        while True:
            config = self._engine.running().state.config
            interval = config.snapshot_interval_s
            await asyncio.sleep(self._rng.uniform(interval, 2 * interval))
            newer = self._engine.applier.index - self._engine.running().state.log.snapshot_index
            if newer >= config.snapshot_threshold:
                try:
                    await self.take()
                except SnapshotError as error:
                    log.error("failed to take snapshot: %s", error)
                except Exception:
                    # A row that cannot be encoded, say: later states may do without it.
                    log.exception("failed to take snapshot")

    async def take(self) -> Snapshot | None:
        """Write a snapshot and truncate the log behind it; None if there is nothing new."""
        async with self._busy:
            return await self._take()

    async def _take(self) -> Snapshot | None:
        engine = self._engine
        meta, core = engine.applier.meta(), engine.running()
        if meta.index <= core.state.log.snapshot_index:
            return None
        chunks = engine.applier.snapshot()
        async with self._sink(meta) as sink:
            await _fill(sink, _gathered(chunks))
            snapshot = await _to_the_end(sink.commit)
        engine.running().compact(meta.index, meta.term)
        engine.pump()
        await asyncio.to_thread(self._store.reap, snapshot)
        log.info("snapshot up to index %d complete, %d bytes", meta.index, snapshot.size)
        return snapshot

    async def open(self) -> tuple[Snapshot, BinaryIO]:
        """The state as of now at the earliest, with its bytes. Raises `SnapshotError`."""
        async with self._busy:
            snapshot = await self._take() or await self._current()
            if snapshot is None:
                raise SnapshotError("nothing new to snapshot")
            return snapshot, await asyncio.to_thread(self._store.open, snapshot)

    async def _current(self) -> Snapshot | None:
        """What stands for the beginning of the log; not a newer one that is about to."""
        raft_log = self._engine.running().state.log
        if not raft_log.snapshot_index:
            return None
        return await asyncio.to_thread(
            self._store.find, raft_log.snapshot_index, raft_log.snapshot_term
        )

    @asynccontextmanager
    async def _sink(self, meta: SnapshotMeta) -> AsyncIterator[Sink]:
        """A sink that is thrown away unless it is committed."""
        sink = await _to_the_end(lambda: self._store.create(meta), lambda sink: sink.abort())
        try:
            yield sink
        except BaseException:
            sink.abort()
            raise

    @asynccontextmanager
    async def _committed(self, sink: Sink) -> AsyncIterator[Snapshot]:
        """The snapshot, durable while it is taken over: deleted if that raises.

        Where it may be left behind, this server halts, for it would start from it.
        """
        try:
            snapshot = await _to_the_end(sink.commit, self._store.delete)
            try:
                yield snapshot
            except BaseException:
                await _to_the_end(lambda: self._store.delete(snapshot))
                raise
        except NotTakenBack as error:
            self._engine.halt(error)
            raise

    async def restore(self, index: int, source: BinaryIO, done: asyncio.Future[object]) -> None:
        """Replace the state by a snapshot from outside, which ended at `index` where it was taken.

        `done` is told when a quorum has it. If the state machine refuses it, or leadership is lost
        before, nothing has changed. Raises `RaftError`.
        """
        engine = self._engine
        async with self._busy:
            if index >= INDEX_END:
                raise SnapshotError(f"index {index} of the snapshot is too large")
            meta = engine.running().begin_restore(index)
            try:
                # Whatever is wrong with it must show before any of it is on disk.
                try:
                    replace = await engine.applier.load(source)
                except ProconsulError as error:
                    raise SnapshotError(f"failed to restore snapshot: {error}") from error
                await asyncio.to_thread(source.seek, 0)
                async with self._sink(meta) as sink:
                    await _fill(sink, _chunks_of(source))
                    async with self._committed(sink) as snapshot:
                        self._take_over(snapshot, replace, done)
                await asyncio.to_thread(self._store.reap, snapshot)
            finally:
                if not engine.stopped:
                    engine.running().cancel_restore(meta)

    def _take_over(
        self, snapshot: Snapshot, replace: Replace, done: asyncio.Future[object]
    ) -> None:
        engine, meta = self._engine, snapshot.meta
        if not engine.running().may_restore(meta):
            raise LeadershipLost
        engine.applier.restore(snapshot, replace)
        engine.applier.wait(engine.running().restored(meta, engine.now()), done)
        engine.pump()
        log.info("restored user snapshot: index=%d bytes=%d", meta.index, snapshot.size)

    async def send(self, send: Send) -> None:
        """Send the latest snapshot to a server and report how that went."""
        engine = self._engine
        state = engine.running().state
        try:
            term = state.term
            snapshot = await self._current() or await self.take()  # if the disk damaged it
            if snapshot is None:
                raise SnapshotError("there is no snapshot to send")
            if state.role is not Role.LEADER or state.term != term:
                raise LeadershipLost  # under a later term it would be another leader's
            meta = snapshot.meta
            request = InstallSnapshotRequest(
                state.term,
                state.candidate_name,
                meta.index,
                meta.term,
                encode_configuration(meta.configuration),
                meta.configuration_index,
                snapshot.size,
                encode_peers(meta.configuration),
            )
            log.info("sending snapshot up to index %d to %s", meta.index, send.server_id)
            response = await engine.transport.send_snapshot(
                send.server_id, send.address, request, self._read(snapshot)
            )
        except (ProconsulError, OSError, TimeoutError) as error:
            reason = str(error) or "timeout"
            log.warning("failed to send snapshot to %s: %s", send.server_id, reason)
            engine.done(send.rid)(None)
            return
        if not isinstance(response, InstallSnapshotResponse):
            engine.done(send.rid)(None)
        elif not engine.stopped:
            engine.running().snapshot_sent(
                send.rid, response.term, response.success, meta.index, engine.now()
            )
            engine.pump()

    async def _read(self, snapshot: Snapshot) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._store.open, snapshot)
        try:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk
        finally:
            file.close()

    async def install(
        self, request: InstallSnapshotRequest, chunks: AsyncIterator[bytes]
    ) -> tuple[Response | None, str]:
        """Receive a snapshot from the leader; not all of `chunks` if it is of no use.

        One that an earlier leader has begun to send is dropped: that one may never go on. Who
        receives it is cancelled.
        """
        engine = self._engine
        answer = engine.handle(request)
        if answer.done():
            return answer.result()
        if self._receiving is not None and self._receiving[0] < request.term:
            self._receiving[1].cancel()
        installed: Snapshot | None = None
        try:
            if request.snapshot_version > SNAPSHOT_VERSION:
                raise SnapshotError(f"unsupported snapshot version {request.snapshot_version}")
            meta = SnapshotMeta(
                request.last_log_index,
                request.last_log_term,
                _configuration(request),
                request.configuration_index if request.snapshot_version else request.last_log_index,
            )
            async with self._busy, self._receives(request.term), self._sink(meta) as sink:
                await _fill(sink, chunks)
                installed = await self._install(sink, meta, request.term)
                if installed is not None:
                    await asyncio.to_thread(self._store.reap, installed)
        except ProconsulError as error:
            log.error("failed to install snapshot: %s", error)
            term = 0 if engine.stopped else engine.running().state.term
            return InstallSnapshotResponse(term, success=False), str(error)
        finally:
            if installed is None and not engine.stopped:
                engine.running().snapshot_aborted(engine.now())
                engine.pump()
        return InstallSnapshotResponse(engine.running().state.term, success=True), ""

    @asynccontextmanager
    async def _receives(self, term: int) -> AsyncIterator[None]:
        if self._engine.running().state.term != term:
            raise _superseded()
        task = asyncio.current_task()
        assert task is not None
        self._receiving = (term, task)
        try:
            yield
        finally:
            self._receiving = None

    async def _install(self, sink: Sink, meta: SnapshotMeta, term: int) -> Snapshot | None:
        """Take over a received snapshot; None if there is no need any more.

        It counts at the next start as soon as it is durable, so it must be good before.
        """
        engine = self._engine
        with await asyncio.to_thread(sink.open) as reader:
            if not engine.running().snapshot_wanted(meta):
                sink.abort()
                return None
            try:
                replace = await engine.applier.load(reader)
            except Exception as error:
                engine.halt(error)
                raise
        try:
            self._check_wanted(meta, term)
            async with self._committed(sink) as snapshot:
                self._check_wanted(meta, term)
                engine.applier.restore(snapshot, replace)
                engine.running().snapshot_installed(meta, engine.now())
                engine.pump()
        except _Unwanted:
            sink.abort()
            return None
        log.info("installed remote snapshot up to index %d", meta.index)
        return snapshot

    def _check_wanted(self, meta: SnapshotMeta, term: int) -> None:
        core = self._engine.running()
        if not core.snapshot_wanted(meta):
            raise _Unwanted
        if core.state.term != term or core.state.role is Role.LEADER:
            raise _superseded()


def _superseded() -> RaftError:
    return RaftError("a later term began while the snapshot was received")


class _Unwanted(Exception):
    """The log has come as far as the snapshot meanwhile."""


def _configuration(request: InstallSnapshotRequest) -> Configuration:
    if request.snapshot_version:
        return decode_configuration(request.configuration)
    return decode_peers(request.peers)


async def _gathered(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Chunks gathered to a few for each write. Half of the time is left to everything else."""
    clock = asyncio.get_running_loop().time
    buffer = bytearray()
    started = clock()
    for chunk in chunks:
        buffer += chunk
        if len(buffer) >= _DRAW_BYTES:
            took_s = clock() - started
            yield bytes(buffer)
            buffer.clear()
            await asyncio.sleep(took_s)
            started = clock()
    if buffer:
        yield bytes(buffer)


async def _chunks_of(source: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES):
        yield chunk


async def _fill(sink: Sink, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await asyncio.to_thread(sink.write, chunk)


async def _to_the_end(call: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
    """`call()` on a thread. Cancelled meanwhile, waits for its end, and takes it back with `undo`.

    A thread cannot be stopped: who goes away must not leave behind what it does then.
    """
    future = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:  # noqa: ASYNC103 - raised below
            cancelled = True
    result = future.result()
    if cancelled:
        if undo is not None:
            await _to_the_end(lambda: undo(result))
        raise asyncio.CancelledError
    return result
