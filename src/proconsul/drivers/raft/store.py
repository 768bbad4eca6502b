"""The durable log, term and vote: LMDB, one environment, one sync per batch of outputs.

Writes are for a worker thread (`write` blocks until the data is on disk), reads for any thread.
The layout follows raft-boltdb: a table `logs` (8-byte big-endian index -> msgpack entry) and a
table `conf` (term and vote under hashicorp/raft's names).
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import lmdb

from proconsul.core.raft.log import MemoryLogStore
from proconsul.core.raft.types import HardState, Output, RaftError
from proconsul.util.errors import WireError
from proconsul.wire.raft import Entry, decode_entry, encode_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

MAP_BYTES_START = 64 << 20
_INDEX_MAX = (1 << 64) - 1


class StoreError(RaftError):
    """The log on disk cannot be used. Names path and remedy."""


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

    def __init__(self, path: str | os.PathLike[str], map_bytes: int = MAP_BYTES_START) -> None:
        self._path = Path(path)
        self._resizing = threading.Lock()
        """LMDB forbids transactions while its map grows."""
        self._lock_fd = self._lock_directory()
        try:
            self._env = lmdb.open(
                str(self._path), map_size=map_bytes, max_dbs=4, mode=0o600, meminit=False,
                max_readers=16,
            )  # fmt: skip
            self._fill_up()
            self._logs = self._env.open_db(b"logs")
            self._conf = self._env.open_db(b"conf")
        except (lmdb.Error, OSError) as error:
            os.close(self._lock_fd)
            raise StoreError(
                f"raft log in {self._path} cannot be opened ({error}): it is damaged or not a raft "
                "log; restore the directory from a backup, or move it away to let this server "
                "fetch its state from the other servers"
            ) from error

    def _fill_up(self) -> None:
        """Give a file that lost its end (a full disk, a repair) zeros there.

        A read of a mapped page beyond the file's end would kill the process (SIGBUS); of zeros LMDB
        says that they are corrupt. A sound file may be a little short too: LMDB never writes pages
        that were taken and freed within one transaction. So this is no reason to refuse it.
        """
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        path = self._path / "data.mdb"
        if path.stat().st_size < needed:
            os.truncate(path, needed)

    def _lock_directory(self) -> int:
        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        except (lmdb.Error, WireError) as error:
            raise StoreError(
                f"raft log in {self._path} cannot be read ({error}): restore it from a backup, or "
                "move the directory away to let this server fetch its state from the other servers"
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
            data = txn.get(index.to_bytes(8, "big"), db=self._logs)
            return None if data is None else decode_entry(data)

    def hard_state(self) -> HardState:
        """Term and vote."""
        with self._reading() as txn:
            term, vote_term, candidate = (
                bytes(txn.get(key, b"", db=self._conf))
                for key in (b"CurrentTerm", b"LastVoteTerm", b"LastVoteCand")
            )
        return HardState(int.from_bytes(term, "big"), int.from_bytes(vote_term, "big"), candidate)

    def write(self, outputs: Sequence[Output]) -> None:
        """Make the outputs' changes durable, all or nothing. Blocks for the disk."""
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    for out in outputs:
                        self._write(txn, out)
                return
            except lmdb.MapFullError:
                with self._resizing:
                    self._env.set_mapsize(self._env.info()["map_size"] * 2)
            except lmdb.Error as error:
                raise StoreError(
                    f"raft log in {self._path} cannot be written ({error}): check the disk's space "
                    "and health, then restart"
                ) from error

    def _write(self, txn: Any, out: Output) -> None:
        if out.hard_state is not None:
            hard = out.hard_state
            txn.put(b"CurrentTerm", hard.term.to_bytes(8, "big"), db=self._conf)
            txn.put(b"LastVoteTerm", hard.vote_term.to_bytes(8, "big"), db=self._conf)
            txn.put(b"LastVoteCand", hard.candidate, db=self._conf)
        if out.truncate_from:
            self._delete(txn, out.truncate_from, _INDEX_MAX)
        for entry in out.append:
            txn.put(entry.index.to_bytes(8, "big"), encode_entry(entry), db=self._logs)
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
