"""Saving and restoring the state of all servers (agent/consul/snapshot_endpoint.go, snapshot/).

A request goes to its datacenter, there to the leader; bytes are passed on as they come, and rest in
temporary files, never in memory. An archive is checked to its end before anything is changed.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from proconsul.core.raft.types import LeadershipLost
from proconsul.domain import errors
from proconsul.domain.errors import DomainError
from proconsul.domain.snapshot import SnapshotOp, SnapshotRequest, SnapshotResponse
from proconsul.drivers.raft.node import RestoreUndecided
from proconsul.drivers.raft.snapshots import Snapshot
from proconsul.drivers.snapshot_archive import (
    ArchiveError,
    ArchiveMeta,
    read_archive,
    write_archive,
)
from proconsul.drivers.stream import PushStream
from proconsul.rpc.dialer import Dialer, HopError
from proconsul.rpc.snapshot_stream import Answer, call, serve
from proconsul.util.errors import ProconsulError
from proconsul.wire.raft import SNAPSHOT_VERSION

if TYPE_CHECKING:
    from proconsul.services.server.server import Server

log = logging.getLogger("proconsul.server.snapshot")

DIAL_S = 10.0
RESTORE_S = 300.0
"""In which a quorum must have got a restored state."""
REASSERT_S = 60.0
"""In which the leader's duties must be under way again."""
SAVES_MAX = 2
"""Archives at once, from their making until the last byte is read: each holds a file and threads."""
SAVE_WAIT_S = 30.0
"""How long one more waits for its turn."""
READ_BYTES = 256 * 1024
SPOOL_MEMORY_BYTES = 1 << 20
"""Smaller archives need no file."""


class Snapshots:
    """The `SnapshotCaller` of a server."""

    def __init__(self, server: Server, dialer: Dialer) -> None:
        self._server, self._dialer = server, dialer
        self._saves = asyncio.Semaphore(SAVES_MAX)

    async def serve(self, stream: PushStream) -> None:
        """A connection for one snapshot request."""
        await serve(stream, self)

    async def snapshot(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        """See `SnapshotCaller.snapshot`."""
        server = self._server
        if request.datacenter not in ("", server.datacenter):
            return await self._to_datacenter(request, body)
        if not request.allow_stale and not server.is_leader:
            leader = server.leader()
            if leader is None:
                raise errors.NoLeaderError
            return await call(self._dialer, leader, request, body, _now() + DIAL_S)
        may = server.resolve_token(request.token)
        if may is None:
            may = await server.resolve_token_later(request.token)
        if not may.snapshot():
            raise errors.PermissionDeniedError
        if request.op == SnapshotOp.SAVE:
            return await self._save(request)
        if request.op != SnapshotOp.RESTORE:
            raise DomainError(f'unrecognized snapshot op "{request.op}"')
        if request.allow_stale:
            raise DomainError("stale not allowed for restore")
        await self._restore(body)
        return SnapshotResponse(), Answer(_nothing, lambda: None)

    async def _to_datacenter(
        self, request: SnapshotRequest, body: AsyncIterator[bytes]
    ) -> tuple[SnapshotResponse, Answer]:
        failure: ProconsulError = errors.NoPathToDatacenterError()
        for to in self._server.servers(request.datacenter):
            try:
                return await call(self._dialer, to, request, body, _now() + DIAL_S)
            except HopError as error:  # nothing of the body is gone: another may be asked
                failure = error
                self._server.failed_server(to)
        raise failure

    # -- saving

    async def _save(self, request: SnapshotRequest) -> tuple[SnapshotResponse, Answer]:
        try:
            async with asyncio.timeout(SAVE_WAIT_S):
                await self._saves.acquire()
        except TimeoutError:
            raise DomainError(
                f"{SAVES_MAX} snapshots are being saved by this server already: try again later"
            ) from None
        with ExitStack() as undone:
            undone.callback(self._saves.release)
            archive = undone.enter_context(tempfile.TemporaryFile(prefix="proconsul-snapshot-"))
            response = await self._archive(request, archive)
            held = undone.pop_all()
        return response, Answer(lambda: asyncio.to_thread(archive.read, READ_BYTES), held.close)

    async def _archive(self, request: SnapshotRequest, archive: IO[bytes]) -> SnapshotResponse:
        """Fill `archive`, and leave it at its beginning."""
        server = self._server
        if not request.allow_stale:
            await server.consistent_read()
        known_leader, last_contact_ns = server.contact()
        try:
            snapshot, state = await server.raft.open_snapshot()
        except ProconsulError as error:
            raise DomainError(f"Raft error when taking snapshot: {error}") from error
        try:
            with state:
                await asyncio.to_thread(
                    write_archive,
                    cast("BinaryIO", archive),
                    _meta(snapshot),
                    state,
                    int(time.time()),
                )
            archive.seek(0)
        except (OSError, ArchiveError) as error:
            raise DomainError(f"failed to write snapshot file: {error}") from error
        return SnapshotResponse(
            index=snapshot.meta.index, known_leader=known_leader, last_contact_ns=last_contact_ns
        )

    # -- restoring

    async def _restore(self, body: AsyncIterator[bytes]) -> None:
        with ExitStack() as stack:
            spool = stack.enter_context(tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES))
            async for chunk in body:
                await asyncio.to_thread(spool.write, chunk)
            spool.seek(0)
            state = stack.enter_context(tempfile.TemporaryFile(prefix="proconsul-snapshot-"))
            meta = await asyncio.to_thread(read_archive, cast("BinaryIO", spool), state)
            size = state.tell()
            if size != meta.size:
                raise ArchiveError(
                    "failed to read snapshot file: snapshot size didn't match "
                    f"({size} != {meta.size})"
                )
            if meta.version > SNAPSHOT_VERSION:
                raise _failed(f"unsupported snapshot version {meta.version}")
            state.seek(0)
            stack.pop_all()  # from here on whoever asked may go away
            spool.close()
            failure = await self._server.to_the_end("restore", self._replace(meta, state))
        if failure is not None:
            raise failure

    async def _replace(self, meta: ArchiveMeta, state: BinaryIO) -> DomainError | None:
        """Replace the state, and begin the leader's duties anew on what it is then.

        Returns what went wrong, for whoever is still there to be told.
        """
        server = self._server
        failure: DomainError | None = None
        try:
            with state, server.not_ready():
                try:
                    await server.raft.restore(meta.index, state, _now() + RESTORE_S)
                except RestoreUndecided as error:
                    failure = _failed(str(error))
        except ProconsulError as error:
            log.error("failed to restore snapshot: id=%s: %s", meta.id, error)
            return _failed(str(error))
        if failure is None:
            log.info("restored snapshot: id=%s index=%d", meta.id, meta.index)
        unmade = await self._reassert(barrier=failure is None)
        return failure or unmade

    async def _reassert(self, *, barrier: bool) -> DomainError | None:
        failure: DomainError | None = None
        if barrier:
            try:
                await self._server.raft.barrier(_now() + RESTORE_S)
            except ProconsulError as error:
                failure = DomainError(str(error))
        try:
            async with asyncio.timeout(REASSERT_S):
                await self._server.reassert_leadership()
        except TimeoutError:
            return DomainError("timed out waiting for re-run of leader actions")
        except LeadershipLost as error:
            return failure or DomainError(str(error))
        return failure


def _failed(reason: str) -> DomainError:
    return DomainError(f"Raft error when restoring snapshot: {reason}")


def _meta(snapshot: Snapshot) -> ArchiveMeta:
    meta = snapshot.meta
    return ArchiveMeta(
        id=snapshot.path.name,
        index=meta.index,
        term=meta.term,
        configuration=meta.configuration,
        configuration_index=meta.configuration_index,
        size=snapshot.size,
    )


async def _nothing() -> bytes:  # noqa: ASYNC124 - an answer is read by waiting
    return b""


def _now() -> float:
    return asyncio.get_running_loop().time()
