"""Snapshots on disk, after hashicorp/raft's FileSnapshotStore.

One directory per snapshot, `<term>-<index>-<milliseconds>`, with `meta.json` and `state.bin`. It is
written under a temporary name, synced, renamed and its parent synced, and goes the same way back, so
that a directory without that suffix is whole; a CRC finds what the disk damaged later. Anything with
another name is not ours. All calls block: worker threads only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from typing_extensions import override

from proconsul.core.raft.types import RaftError, SnapshotMeta
from proconsul.util.errors import WireError
from proconsul.wire.raft import decode_configuration, encode_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("proconsul.snapshot")

_TMP = ".tmp"
_NAME = re.compile(r"\d+-\d+-\d+")
_READ_BYTES = 1 << 20


class SnapshotError(RaftError):
    """A snapshot cannot be written or read. Names the path."""


class NotTakenBack(SnapshotError):
    """A snapshot that must not count may still be there at the next start."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole snapshot: `size` bytes at `path`."""

    meta: SnapshotMeta
    size: int
    path: Path


class Sink(Protocol):
    """Takes a snapshot's bytes; ends with `commit` or `abort`."""

    def write(self, data: bytes) -> None: ...
    def open(self) -> BinaryIO: ...
    def commit(self) -> Snapshot: ...
    def abort(self) -> None: ...


class FileSink:
    """The sink of a `FileSnapshotStore`."""

    def __init__(self, store: FileSnapshotStore, meta: SnapshotMeta, name: str) -> None:
        self._store, self._meta = store, meta
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

    def open(self) -> BinaryIO:
        """What was written so far, to be read before it counts."""
        try:
            self._file.flush()
            return open(self._tmp / "state.bin", "rb")
        except OSError as error:
            raise SnapshotError(f"snapshot {self._tmp} cannot be read: {error}") from error

    def commit(self) -> Snapshot:
        """Make it durable and visible; what raises has left nothing visible.

        Raises `NotTakenBack` if that cannot be had.
        """
        meta = self._meta
        snapshot = Snapshot(meta, self._size, self._final)
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
            sync_directory(self._tmp)
            self._tmp.rename(self._final)
        except OSError as error:
            raise SnapshotError(f"snapshot {self._final} cannot be written: {error}") from error
        try:
            sync_directory(self._store.path)
        except OSError as error:
            self._store.delete(snapshot)
            raise SnapshotError(f"snapshot {self._final} cannot be written: {error}") from error
        return snapshot

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
            make_directory(self.path)
            for leftover in self.path.glob("*" + _TMP):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError as error:
            raise SnapshotError(f"snapshot path {self.path} not accessible: {error}") from error

    def create(self, meta: SnapshotMeta) -> Sink:
        """Start a snapshot."""
        try:
            name = self._new_name(meta)
        except OSError as error:
            raise SnapshotError(f"no snapshot in {self.path} can be created: {error}") from error
        return FileSink(self, meta, name)

    def _new_name(self, meta: SnapshotMeta) -> str:
        """A name for a directory: later than any of the same entry, though the clock went back."""
        prefix = f"{meta.term}-{meta.index}-"
        taken = [p for p in snapshot_directories(self.path) if p.name.startswith(prefix)]
        newest = max(map(_milliseconds, taken), default=0)
        return f"{prefix}{max(time.time_ns() // 1_000_000, newest + 1)}"

    def list(self) -> list[Snapshot]:
        """All whole snapshots, newest first; what cannot be read is logged and left out."""
        found: list[Snapshot] = []
        for directory in snapshot_directories(self.path):
            try:
                found.append(_read_meta(directory))
            except (OSError, ValueError, KeyError, TypeError, WireError) as error:
                log.warning("snapshot %s is not readable, ignored: %s", directory, error)
        found.sort(key=lambda s: (s.meta.term, s.meta.index, _milliseconds(s.path)), reverse=True)
        return found

    def intact(self) -> Iterator[Snapshot]:
        """Those whose checksums are right, newest first. Reads each when it is asked for."""
        for snapshot in self.list():
            if _intact(snapshot):
                yield snapshot
            else:
                log.error("snapshot %s is damaged, trying the one before", snapshot.path)

    def find(self, index: int, term: int) -> Snapshot | None:
        """The intact snapshot that ends with this entry, None if there is none."""
        return next(
            (s for s in self.intact() if (s.meta.index, s.meta.term) == (index, term)), None
        )

    def open(self, snapshot: Snapshot) -> BinaryIO:
        """Its bytes."""
        try:
            return open(snapshot.path / "state.bin", "rb")
        except OSError as error:
            raise SnapshotError(f"snapshot {snapshot.path} cannot be read: {error}") from error

    def delete(self, snapshot: Snapshot) -> None:
        """Take back a snapshot, durably and as a whole. Raises `NotTakenBack`."""
        gone = snapshot.path.with_name(snapshot.path.name + _TMP)
        try:
            snapshot.path.rename(gone)
            sync_directory(self.path)
        except OSError as error:
            raise NotTakenBack(
                f"snapshot {snapshot.path} must not count, and cannot be deleted ({error}): delete "
                "it, then restart"
            ) from error
        shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Nothing to do: what is committed is on disk."""

    def reap(self, current: Snapshot) -> None:
        """Delete all but `current` and the newest of the others, `retain` in all.

        What cannot be deleted stays until the next time.
        """
        with contextlib.suppress(OSError, NotTakenBack):
            others = [s for s in self.list() if s.path != current.path]
            for old in others[self._retain - 1 :]:
                self.delete(old)


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


def _milliseconds(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


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


def snapshot_directories(path: Path) -> list[Path]:
    """The snapshots in `path`, whole or damaged; not what others put there (`lost+found`)."""
    return [p for p in path.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()]


def make_directory(path: Path) -> None:
    """Make `path` and what is missing above it, durably. Raises `OSError`."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for made in missing:
        sync_directory(made.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
