"""The rejoin snapshot on disk: appended to in small batches off the loop, rewritten when too long.

Lines are lost only if the process dies within `FLUSH_S` of a change, which costs nothing but an
outdated address; a leave is made durable at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from proconsul.core.gossip.serf.snapshot import Snapshot, replay
from proconsul.drivers.scope import TaskScope
from proconsul.util.errors import ConfigError

log = logging.getLogger("proconsul.serf.snapshot")

FLUSH_S = 0.5
RETRY_S = 30.0
"""After a failed write; the next one rewrites the whole file."""
FILE_BYTES_MAX = 64 * 1024 * 1024
_PENDING_LINES_MAX = 65536


class SnapshotFile:
    """Owns one file. `snapshot` is the machine's live state, from which the file is rewritten."""

    def __init__(self, path: Path, *, rejoin_after_leave: bool) -> None:
        self.path, self._rejoin_after_leave = path, rejoin_after_leave
        self.snapshot = Snapshot()
        self._pending: list[str] = []
        self._scope = TaskScope("serf-snapshot")
        self._flusher: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._size = 0
        self._broken = False

    async def load(self) -> Snapshot:
        """What the last life left behind. Raises `ConfigError` if the file cannot be used."""
        try:
            text = await asyncio.to_thread(self._read)
        except OSError as error:
            raise ConfigError(f"failed to open snapshot {self.path}: {error}") from error
        self._size = len(text)
        lines = text.decode("utf-8", "surrogateescape").split("\n")[:-1]
        self.snapshot = replay(lines, rejoin_after_leave=self._rejoin_after_leave)
        return self.snapshot

    def _read(self) -> bytes:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            file.seek(0)
            data = file.read(FILE_BYTES_MAX + 1)
            if len(data) > FILE_BYTES_MAX:
                raise OSError(f"larger than {FILE_BYTES_MAX} bytes")
            if data and not data.endswith(b"\n"):  # torn by a crash: end the line
                file.write(b"\n")
            return data

    def append(self, lines: Sequence[str]) -> None:
        """Write soon. Never blocks."""
        if len(self._pending) >= _PENDING_LINES_MAX:
            self._pending.clear()
            self._broken = True
        self._pending += lines
        if self._flusher is None or self._flusher.done():
            delay_s = RETRY_S if self._broken else FLUSH_S
            self._flusher = self._scope.spawn("flush", self._flush_later(delay_s))

    async def _flush_later(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self.flush(durable=False)

    async def flush(self, *, durable: bool) -> None:
        """Write what is pending, with fsync if `durable`. Failures are logged."""
        async with self._writing:
            lines, self._pending = self._pending, []
            try:
                if self._broken or self._size > self.snapshot.compact_at_bytes:
                    left = ["leave"] if self.snapshot.left else []
                    self._size = await asyncio.to_thread(
                        self._rewrite, [*self.snapshot.lines(), *left]
                    )
                elif lines or durable:
                    self._size += await asyncio.to_thread(self._append, lines, durable)
                self._broken = False
            except OSError as error:
                self._broken = True
                log.error("failed to update snapshot %s: %s", self.path, error)

    def _append(self, lines: Sequence[str], durable: bool) -> int:
        data = _encode(lines)
        with open(self.path, "ab") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        return len(data)

    def _rewrite(self, lines: Sequence[str]) -> int:
        data = _encode(lines)
        temporary = self.path.with_name(self.path.name + ".compact")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        return len(data)

    async def aclose(self) -> None:
        """Write everything, durably."""
        await self._scope.aclose()
        await self.flush(durable=True)


def _encode(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
