"""Taking, sending and receiving snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, BinaryIO

from proconsul.core.raft.types import LeadershipLost, RaftError, Role, Send, SnapshotMeta
from proconsul.drivers.raft.snapshots import FileSnapshotStore, Sink, Snapshot, SnapshotError
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
    from proconsul.drivers.raft.engine import Engine
    from proconsul.util.clock import Rng

log = logging.getLogger("proconsul.raft")

_CHUNK_BYTES = 1 << 20
_DRAW_BYTES = 256 << 10
"""How much of a snapshot is encoded at once: about a millisecond."""


class Snapshotter:
    """The snapshots of one node."""

    def __init__(self, engine: Engine, store: FileSnapshotStore, rng: Rng) -> None:
        self._engine, self._store, self._rng = engine, store, rng
        self._busy = asyncio.Lock()

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

    async def take(self) -> Snapshot | None:
        """Write a snapshot and truncate the log behind it; None if there is nothing new."""
        engine = self._engine
        async with self._busy:
            meta, core = engine.applier.meta(), engine.running()
            if meta.index <= core.state.log.snapshot_index:
                return None
            chunks = engine.applier.snapshot()
            sink = await asyncio.to_thread(self._store.create, meta)
            snapshot = await _fill(sink, _gathered(chunks))
            engine.running().compact(meta.index, meta.term)
            engine.pump()
            log.info("snapshot up to index %d complete, %d bytes", meta.index, snapshot.size)
            return snapshot

    async def restore(self, index: int, source: BinaryIO, done: asyncio.Future[object]) -> None:
        """Replace the state by a snapshot from outside, which ended at `index` where it was taken.

        `done` is told when a quorum has it. If the state machine refuses it, or leadership is lost
        before, nothing has changed. Raises `RaftError`.
        """
        engine = self._engine
        async with self._busy:
            meta = engine.running().begin_restore(index)
            try:
                sink = await asyncio.to_thread(self._store.create, meta)
                snapshot = await _fill(sink, _chunks_of(source))
                try:
                    await self._take_over(snapshot, done)
                except BaseException:
                    await asyncio.to_thread(self._store.delete, snapshot)
                    raise
            finally:
                if not engine.stopped:
                    engine.running().cancel_restore(meta)

    async def _take_over(self, snapshot: Snapshot, done: asyncio.Future[object]) -> None:
        engine, meta = self._engine, snapshot.meta
        reader = await asyncio.to_thread(self._store.open, snapshot)
        with reader:
            try:
                replace = await engine.applier.load(reader)
            except ProconsulError as error:
                raise SnapshotError(f"failed to restore snapshot: {error}") from error
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
            snapshot = await asyncio.to_thread(self._store.latest)
            if snapshot is None:
                raise SnapshotError("there is no snapshot to send")
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
        """Receive a snapshot from the leader. Takes all of `chunks`, whatever the outcome."""
        engine = self._engine
        answer = engine.handle(request)
        if answer.done():
            async for _ in chunks:
                pass
            return answer.result()
        installed = False
        try:
            if request.snapshot_version > SNAPSHOT_VERSION:
                raise SnapshotError(f"unsupported snapshot version {request.snapshot_version}")
            meta = SnapshotMeta(
                request.last_log_index,
                request.last_log_term,
                _configuration(request),
                request.configuration_index if request.snapshot_version else request.last_log_index,
            )
            async with self._busy:
                sink = await asyncio.to_thread(self._store.create, meta)
                snapshot = await _fill(sink, chunks)
                installed = await self._restore(snapshot, request.term)
        except ProconsulError as error:
            log.error("failed to install snapshot: %s", error)
            term = 0 if engine.stopped else engine.running().state.term
            return InstallSnapshotResponse(term, success=False), str(error)
        finally:
            if not installed and not engine.stopped:
                engine.running().snapshot_aborted(engine.now())
                engine.pump()
        return InstallSnapshotResponse(engine.running().state.term, success=True), ""

    async def _restore(self, snapshot: Snapshot, term: int) -> bool:
        """Take over a durable snapshot; False if there is no need any more."""
        engine, meta = self._engine, snapshot.meta
        reader = await asyncio.to_thread(self._store.open, snapshot)
        with reader:
            if not engine.running().snapshot_wanted(meta):
                return False
            try:
                replace = await engine.applier.load(reader)
            except Exception as error:
                engine.halt(error)
                raise
        core = engine.running()
        if not core.snapshot_wanted(meta):
            return False
        if core.state.term != term or core.state.role is Role.LEADER:
            raise RaftError("a later term began while the snapshot was received")
        engine.applier.restore(snapshot, replace)
        core.snapshot_installed(meta, engine.now())
        engine.pump()
        log.info("installed remote snapshot up to index %d", meta.index)
        return True


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


async def _fill(sink: Sink, chunks: AsyncIterator[bytes]) -> Snapshot:
    try:
        async for chunk in chunks:
            await asyncio.to_thread(sink.write, chunk)
        return await asyncio.to_thread(sink.commit)
    except BaseException:
        sink.abort()
        raise
