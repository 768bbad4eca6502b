"""The durable log, term and vote: LMDB, one environment, one sync per batch of outputs.

Writes are for a worker thread (`write` blocks until the data is on disk), reads for any thread.
The layout resembles raft-boltdb's: a table `logs` (8-byte big-endian index -> entry) and a table `conf`
(format, term and vote). LMDB has no checksums, so every value begins with one, over key and value:
what a disk damages is refused, at the start for all of the log, and never taken for something else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import lmdb

from proconsul.core.raft.log import MemoryLogStore
from proconsul.core.raft.types import HardState, Output, RaftError
from proconsul.drivers.raft.records import (
    FORMAT,
    FORMAT_KEY,
    HARD_KEY,
    MAP_BYTES,
    DamagedError,
    child_probes,
    fill_up,
    get,
    open_environment,
    put,
)
from proconsul.drivers.raft.snapshots import make_directory, snapshot_directories, sync_directory
from proconsul.util.errors import WireError
from proconsul.wire.raft import Entry, decode_entry, encode_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

_INDEX_MAX = (1 << 64) - 1
_REMEDY = (
    "restore the raft directory from a backup, or move it away to let this server fetch its state "
    "from the other servers"
)
_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))
_FULL_BYTES = 1 << 20
"""Less room than this, and LMDB's EIO means a write cut short by a full disk."""


class StoreError(RaftError):
    """The log on disk cannot be used. Names path and remedy."""


class DiskFull(StoreError):
    """There is no room for what should be written. Nothing of it was; the same may be tried again."""


class Store(Protocol):
    """Where a `RaftNode` keeps log, term and vote."""

    blocking: bool
    """Whether `write` waits for a disk and so belongs on a worker thread."""

    def first_index(self) -> int: ...
    def last_index(self) -> int: ...
    def get(self, index: int) -> Entry | None: ...
    def hard_state(self) -> HardState: ...
    def write(self, outputs: Sequence[Output]) -> None: ...
    def close(self) -> None: ...


class MemoryStore(MemoryLogStore):
    """Nothing survives: for `-dev` servers and tests."""

    blocking = False

    def __init__(self) -> None:
        super().__init__()
        self._hard = HardState()

    def hard_state(self) -> HardState:
        """Term and vote."""
        return self._hard

    def write(self, outputs: Sequence[Output]) -> None:
        """Do what the outputs ask for, in order."""
        for out in outputs:
            self._hard = out.hard_state or self._hard
            if out.truncate_from:
                self.delete(out.truncate_from, _INDEX_MAX)
            self.append(out.append)
            if out.delete_to:
                self.delete(0, out.delete_to)

    def close(self) -> None:
        """Nothing to do."""


class LmdbStore:
    """Log and stable store in the directory `path` (made if it is missing).

    Raises `StoreError` if the directory is in use, foreign, damaged or not writable.
    """

    blocking = True

    def __init__(self, path: str | os.PathLike[str], map_bytes: int = MAP_BYTES) -> None:
        self._path = Path(path)
        self._resizing = threading.Lock()
        """LMDB forbids transactions while its map grows."""
        self._lock_fd = self._lock_directory()
        try:
            self._create_or_find()
            self._probe()
            self._env = open_environment(self._path, map_bytes)
            fill_up(self._env, self._path)
            self._logs = self._env.open_db(b"logs")
            self._conf = self._env.open_db(b"conf")
            self._check_format()
        except (lmdb.Error, OSError, WireError, DamagedError) as error:
            os.close(self._lock_fd)
            if _is_full(error, self._path):
                raise StoreError(
                    f"raft log in {self._path} cannot be opened ({error}): make room on its disk"
                ) from error
            raise StoreError(
                f"raft log in {self._path} cannot be opened ({error}): it is damaged or not a raft "
                f"log; {_REMEDY}"
            ) from error
        except StoreError:
            os.close(self._lock_fd)
            raise

    def _create_or_find(self) -> None:
        """Make a new log, whole or not at all; refuse to when there was one before."""
        path = self._path / "data.mdb"
        if path.exists():
            if path.stat().st_size == 0:
                raise StoreError(f"raft log {path} is empty, its content is lost: {_REMEDY}")
            self._note_log()
            return
        snapshots = self._path / "snapshots"
        if os.fstat(self._lock_fd).st_size or (
            snapshots.is_dir() and snapshot_directories(snapshots)
        ):
            raise StoreError(f"raft log {path} is missing, but there was one: {_REMEDY}")
        new = self._path / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        env = open_environment(new)
        try:
            conf = env.open_db(b"conf")
            with env.begin(write=True) as txn:
                put(txn, conf, FORMAT_KEY, FORMAT.to_bytes(4, "big"))
        finally:
            env.close()
        (new / "data.mdb").rename(path)
        shutil.rmtree(new, ignore_errors=True)
        self._note_log()
        os.fsync(self._lock_fd)
        sync_directory(self._path)

    def _note_log(self) -> None:
        """From now on its absence is a loss. On a full disk, the next start will do."""
        with contextlib.suppress(OSError):
            if os.fstat(self._lock_fd).st_size == 0:
                os.write(self._lock_fd, b"there is a log\n")

    def _probe(self) -> None:
        """Read all of the log once, in a child: a damaged page can kill the process that reads it.

        Blocks: about a microsecond for each entry. Raises `StoreError`.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            child_probes(self._path, writing, self._lock_fd)
        os.close(writing)
        with open(reading, "rb") as pipe:
            reason = pipe.read().decode()
        _, status = os.waitpid(child, 0)
        if status:
            raise StoreError(
                f"raft log in {self._path} is damaged or not a raft log"
                f" ({reason or f'reading it ended by signal {os.WTERMSIG(status)}'}): {_REMEDY}"
            )

    def _check_format(self) -> None:
        number = -1
        while number < 0:
            try:
                with self._env.begin(write=True) as txn:
                    if txn.get(FORMAT_KEY, db=self._conf) is None:
                        self._upgrade(txn)
                    number = int.from_bytes(get(txn, self._conf, FORMAT_KEY) or b"", "big")
            except lmdb.MapFullError:
                self._grow()
        if number != FORMAT:
            raise StoreError(
                f"raft log in {self._path} has format {number}, this version knows {FORMAT}: run "
                "the version that wrote it, or another data directory"
            )

    def _upgrade(self, txn: Any) -> None:
        """From format 1: give every record its checksum."""
        index = 0
        with txn.cursor(db=self._logs) as cursor:
            while cursor.set_range(index.to_bytes(8, "big")):
                key, value = (bytes(item) for item in cursor.item())
                index = int.from_bytes(key, "big")
                if decode_entry(value).index != index:
                    raise WireError("an entry is not where it should be")
                put(txn, self._logs, key, value)
                index += 1
        numbers = [txn.pop(key, db=self._conf) or b"" for key in (b"CurrentTerm", b"LastVoteTerm")]
        candidate = txn.pop(b"LastVoteCand", db=self._conf) or b""
        hard = b"".join(number.rjust(8, b"\0") for number in numbers) + candidate
        put(txn, self._conf, HARD_KEY, hard)
        put(txn, self._conf, FORMAT_KEY, FORMAT.to_bytes(4, "big"))

    def _lock_directory(self) -> int:
        for path in (self._path, *self._path.parents):
            if path.exists() and not path.is_dir():
                raise StoreError(
                    f"{path} is a file where a directory for raft's data should be: move it away, "
                    "or set another data directory"
                )
        try:
            make_directory(self._path)
            if (self._path / "raft.db").exists():
                raise StoreError(
                    f"{self._path} holds a raft log of HashiCorp Consul (raft.db), which cannot be "
                    "read: use another data directory and let this server join the others"
                )
            fd = os.open(self._path / "in-use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"raft directory {self._path} is not usable: {error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise StoreError(
                f"raft directory {self._path} is in use by another process: stop it, or set "
                "another data directory"
            ) from error
        return fd

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with self._resizing, self._env.begin(buffers=True) as txn:
                yield txn
        except (lmdb.Error, WireError, DamagedError) as error:
            raise StoreError(
                f"raft log in {self._path} cannot be read ({error}): {_REMEDY}"
            ) from error

    def first_index(self) -> int:
        """The first entry's index, 0 if there is none."""
        with self._reading() as txn, txn.cursor(db=self._logs) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.first() else 0

    def last_index(self) -> int:
        """The last entry's index, 0 if there is none."""
        with self._reading() as txn, txn.cursor(db=self._logs) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.last() else 0

    def get(self, index: int) -> Entry | None:
        """The entry at `index`, None if it is not there."""
        with self._reading() as txn:
            data = get(txn, self._logs, index.to_bytes(8, "big"))
            return None if data is None else decode_entry(data)

    def hard_state(self) -> HardState:
        """Term and vote."""
        with self._reading() as txn:
            data = get(txn, self._conf, HARD_KEY)
            hard = b"" if data is None else bytes(data)
        return HardState(
            int.from_bytes(hard[:8], "big"), int.from_bytes(hard[8:16], "big"), hard[16:]
        )

    def write(self, outputs: Sequence[Output]) -> None:
        """Make the outputs' changes durable, all or nothing. Blocks for the disk."""
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    for out in outputs:
                        self._write(txn, out)
                return
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                if _is_full(error, self._path):
                    raise DiskFull(
                        f"raft log in {self._path} cannot be written, its disk is full ({error}): "
                        "writes are refused until there is room"
                    ) from error
                raise StoreError(
                    f"raft log in {self._path} cannot be written ({error}): check the disk's "
                    "health, then restart"
                ) from error

    def _grow(self) -> None:
        with self._resizing:
            self._env.set_mapsize(self._env.info()["map_size"] * 2)

    def _write(self, txn: Any, out: Output) -> None:
        if out.hard_state is not None:
            hard = out.hard_state
            numbers = hard.term.to_bytes(8, "big") + hard.vote_term.to_bytes(8, "big")
            put(txn, self._conf, HARD_KEY, numbers + hard.candidate)
        if out.truncate_from:
            self._delete(txn, out.truncate_from, _INDEX_MAX)
        for entry in out.append:
            put(txn, self._logs, entry.index.to_bytes(8, "big"), encode_entry(entry))
        if out.delete_to:
            self._delete(txn, 0, out.delete_to)

    def _delete(self, txn: Any, first: int, last: int) -> None:
        end = last.to_bytes(8, "big")
        with txn.cursor(db=self._logs) as cursor:
            found = cursor.set_range(first.to_bytes(8, "big"))
            while found and cursor.key() <= end:
                found = cursor.delete() and bool(cursor.key())

    def close(self) -> None:
        """Close the environment and release the directory. No call may be under way."""
        self._env.close()
        os.close(self._lock_fd)


def _is_full(error: Exception, path: Path) -> bool:
    if isinstance(error, lmdb.DiskError) or any(text in str(error) for text in _FULL):
        return True
    if os.strerror(errno.EIO) not in str(error):
        return False
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize < _FULL_BYTES
