"""Bodies too large for memory: kept in temporary files, by threads, a few at a time.

The event loop never waits for the disk: a connection is told to stop reading while its spool is
`full`, and goes on when what had come is written.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar

from proconsul.drivers.disk_space import no_room, room

T = TypeVar("T")

WRITE_BYTES = 256 * 1024
"""Written at once; a smaller body needs no file."""
FULL_BYTES = 1 << 20
"""What may wait for the disk before its connection has to stop reading."""


class Spools:
    """The spools of one server: at most `limit` at once, each with a thread for its disk."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open = 0
        self._threads: ThreadPoolExecutor | None = None
        self._ended = False

    def open(self, declared: int, progress: Callable[[OSError | None], None]) -> Spool | None:
        """A spool for a body of `declared` bytes (-1: unknown); None if there are too many.

        `progress` is called after every write, with what failed. Raises `OSError` if there is no
        room for the body.
        """
        if self._open >= self.limit:
            return None
        if declared > FULL_BYTES and declared > (free := room(tempfile.gettempdir())):
            raise no_room(declared, free)
        self._open += 1
        return Spool(self, progress)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `work` in a thread, or here and now once the server has ended."""
        loop = asyncio.get_running_loop()
        if self._ended:
            done: asyncio.Future[T] = loop.create_future()
            done.set_result(work())
            return done
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.limit, "http-spool")
        return loop.run_in_executor(self._threads, work)

    def released(self) -> None:
        """A spool's file is gone."""
        self._open -= 1

    async def aclose(self) -> None:
        """Wait for the threads; what is closed later is closed by whoever asks."""
        self._ended = True
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)


class Spool:
    """One body. Fed by the connection, then read once by iterating over it."""

    __slots__ = (
        "_closed", "_file", "_lock", "_owner", "_pending", "_pending_bytes", "_progress", "_writing",
    )  # fmt: skip

    def __init__(self, owner: Spools, progress: Callable[[OSError | None], None]) -> None:
        self._owner, self._progress = owner, progress
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._writing: asyncio.Future[None] | None = None
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether nothing more should be fed before the next `progress`."""
        return self._pending_bytes >= FULL_BYTES

    def feed(self, data: bytes) -> None:
        """Keep the next bytes of the body."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._writing is None and self._pending_bytes >= WRITE_BYTES:
            self._begin_write()

    def _begin_write(self) -> None:
        data, self._pending, self._pending_bytes = b"".join(self._pending), [], 0
        self._writing = self._owner.submit(lambda: self._write(data))
        self._writing.add_done_callback(self._written)

    def _write(self, data: bytes) -> None:
        with self._lock:
            if self._closed:
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="proconsul-body-")  # noqa: SIM115
            if (free := room(self._file.fileno())) < len(data):
                raise no_room(len(data), free)
            self._file.write(data)

    def _written(self, writing: asyncio.Future[None]) -> None:
        error = writing.exception()
        if error is None:
            self._writing = None
            if self._pending_bytes >= WRITE_BYTES and not self._closed:
                self._begin_write()
        if not self._closed:
            self._progress(error if isinstance(error, OSError) else None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in chunks, after all of it was fed. Raises `OSError` if it could not be kept."""
        while self._writing is not None:
            await asyncio.shield(self._writing)
            await asyncio.sleep(0)  # lets `_written` begin the next one
        if self._file is not None:
            await self._owner.submit(self._rewind)
            while chunk := await self._owner.submit(self._read):
                yield chunk
        for chunk in self._pending:
            yield chunk

    def _rewind(self) -> None:
        with self._lock:
            if self._file is not None and not self._closed:
                self._file.seek(0)

    def _read(self) -> bytes:
        with self._lock:
            return self._file.read(WRITE_BYTES) if self._file and not self._closed else b""

    def close(self) -> None:
        """Delete the file; harmless if that was done."""
        if self._closed:
            return
        self._closed = True
        self._pending = []
        if self._file is None and self._writing is None:
            self._owner.released()
            return
        self._owner.submit(self._delete).add_done_callback(lambda _: self._owner.released())

    def _delete(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
