"""Snapshots on disk, after hashicorp/raft's FileSnapshotStore.

One directory per snapshot, `<term>-<index>-<milliseconds>`, with `meta.json` and `state.bin`. It is
written under a temporary name, synced, renamed and its parent synced, so that a directory without
that suffix is whole; a CRC finds what the disk damaged later. All calls block: worker threads only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from typing_extensions import override

from proconsul.core.raft.types import RaftError, SnapshotMeta
from proconsul.util.errors import WireError
from proconsul.wire.raft import decode_configuration, encode_configuration

log = logging.getLogger("proconsul.snapshot")

_TMP = ".tmp"
_READ_BYTES = 1 << 20


class SnapshotError(RaftError):
    """A snapshot cannot be written or read. Names the path."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole snapshot: `size` bytes at `path`."""

    meta: SnapshotMeta
    size: int
    path: Path


class Sink(Protocol):
    """Takes a snapshot's bytes; ends with `commit` or `abort`."""

    def write(self, data: bytes) -> None: ...
    def commit(self) -> Snapshot: ...
    def abort(self) -> None: ...


class FileSink:
    """The sink of a `FileSnapshotStore`."""

    def __init__(self, store: FileSnapshotStore, meta: SnapshotMeta) -> None:
        self._store, self._meta = store, meta
        name = f"{meta.term}-{meta.index}-{time.time_ns() // 1_000_000}"
        self._final = store.path / name
        self._tmp = store.path / (name + _TMP)
        self._size = self._crc = 0
        try:
            self._tmp.mkdir(mode=0o700)
            self._file = open(self._tmp / "state.bin", "wb")  # noqa: SIM115
        except OSError as error:
            shutil.rmtree(self._tmp, ignore_errors=True)
            raise SnapshotError(f"snapshot {self._tmp} cannot be created: {error}") from error

    def write(self, data: bytes) -> None:
        """Append bytes."""
        try:
            self._file.write(data)
        except OSError as error:
            raise SnapshotError(f"snapshot {self._tmp} cannot be written: {error}") from error
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)

    def commit(self) -> Snapshot:
        """Make it durable and visible, and drop the oldest ones."""
        meta = self._meta
        fields = {
            "Version": 1,
            "Index": meta.index,
            "Term": meta.term,
            "Configuration": encode_configuration(meta.configuration).hex(),
            "ConfigurationIndex": meta.configuration_index,
            "Size": self._size,
            "CRC32": self._crc,
        }
        text = json.dumps({**fields, "MetaCRC32": _crc(fields)})
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            with open(self._tmp / "meta.json", "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(self._tmp)
            self._tmp.rename(self._final)
            _sync_directory(self._store.path)
        except OSError as error:
            raise SnapshotError(f"snapshot {self._final} cannot be written: {error}") from error
        self._store.reap()
        return Snapshot(meta, self._size, self._final)

    def abort(self) -> None:
        """Throw it away."""
        with contextlib.suppress(OSError):  # what is buffered may have no room
            self._file.close()
        shutil.rmtree(self._tmp, ignore_errors=True)


class FileSnapshotStore:
    """Snapshots under `<base>/snapshots`, the newest `retain` of them."""

    def __init__(self, base: str | os.PathLike[str], retain: int = 2) -> None:
        self.path = Path(base) / "snapshots"
        self._retain = retain
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in self.path.glob("*" + _TMP):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError as error:
            raise SnapshotError(f"snapshot path {self.path} not accessible: {error}") from error

    def create(self, meta: SnapshotMeta) -> Sink:
        """Start a snapshot."""
        return FileSink(self, meta)

    def list(self) -> list[Snapshot]:
        """All whole snapshots, newest first; what cannot be read is logged and left out."""
        found: list[Snapshot] = []
        for directory in self.path.iterdir():
            if directory.suffix == _TMP or not directory.is_dir():
                continue
            try:
                found.append(_read_meta(directory))
            except (OSError, ValueError, KeyError, TypeError, WireError) as error:
                log.warning("snapshot %s is not readable, ignored: %s", directory, error)
        found.sort(key=lambda s: (s.meta.term, s.meta.index, s.path.name), reverse=True)
        return found

    def latest(self) -> Snapshot | None:
        """The newest snapshot whose checksum is right, None if there is none at all.

        Raises `SnapshotError` if there are snapshots but all are damaged: starting without one
        would lose committed state.
        """
        snapshots = self.list()
        for snapshot in snapshots:
            if _intact(snapshot):
                return snapshot
            log.error("snapshot %s is damaged, trying the one before", snapshot.path)
        if snapshots or any(p.suffix != _TMP for p in self.path.iterdir()):
            raise SnapshotError(
                f"no snapshot in {self.path} is intact: restore the directory from a backup, or "
                "move the raft directory away to let this server fetch its state from the others"
            )
        return None

    def open(self, snapshot: Snapshot) -> BinaryIO:
        """Its bytes."""
        try:
            return open(snapshot.path / "state.bin", "rb")
        except OSError as error:
            raise SnapshotError(f"snapshot {snapshot.path} cannot be read: {error}") from error

    def delete(self, snapshot: Snapshot) -> None:
        """Take back a snapshot that turned out to be of no use."""
        shutil.rmtree(snapshot.path, ignore_errors=True)

    def close(self) -> None:
        """Nothing to do: what is committed is on disk."""

    def reap(self) -> None:
        """Delete all but the newest `retain`."""
        for old in self.list()[self._retain :]:
            shutil.rmtree(old.path, ignore_errors=True)


class MemorySnapshotStore(FileSnapshotStore):
    """A store that goes with the process: for `-dev` servers and tests.

    Its files are in a directory of its own under the system's temporary one.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="proconsul-snapshots-")
        super().__init__(self._directory.name, retain=1)

    @override
    def close(self) -> None:
        """Delete it all."""
        self._directory.cleanup()


def _read_meta(directory: Path) -> Snapshot:
    fields = _fields(directory)
    meta = SnapshotMeta(
        int(fields["Index"]),
        int(fields["Term"]),
        decode_configuration(bytes.fromhex(fields["Configuration"])),
        int(fields["ConfigurationIndex"]),
    )
    return Snapshot(meta, int(fields["Size"]), directory)


def _fields(directory: Path) -> dict[str, Any]:
    """What `meta.json` says. Raises `ValueError` if it is not as it was written."""
    fields: dict[str, Any] = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
    expected = fields.pop("MetaCRC32", None)  # the first snapshots had none
    if expected is not None and expected != _crc(fields):
        raise ValueError("the checksum of meta.json is wrong")
    return fields


def _crc(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())


def _intact(snapshot: Snapshot) -> bool:
    try:
        fields = _fields(snapshot.path)
        crc = size = 0
        with open(snapshot.path / "state.bin", "rb") as file:
            while chunk := file.read(_READ_BYTES):
                crc = zlib.crc32(chunk, crc)
                size += len(chunk)
    except (OSError, ValueError):
        return False
    return bool(crc == fields.get("CRC32") and size == snapshot.size)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
