"""Log store and snapshots on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proconsul.core.raft.types import HardState, Output, SnapshotMeta
from proconsul.drivers.raft.snapshots import FileSnapshotStore, SnapshotError
from proconsul.drivers.raft.stats import go_duration
from proconsul.drivers.raft.store import LmdbStore, MemoryStore, Store, StoreError
from proconsul.wire.raft import Configuration, Entry, LogType


def _entries(first: int, last: int, size: int = 3) -> list[Entry]:
    return [Entry(i, 1, LogType.COMMAND, b"x" * size) for i in range(first, last + 1)]


@pytest.mark.parametrize("kind", ["lmdb", "memory"])
def test_stores_agree(tmp_path: Path, kind: str) -> None:
    store: Store = LmdbStore(tmp_path) if kind == "lmdb" else MemoryStore()
    assert (store.first_index(), store.last_index(), store.get(1)) == (0, 0, None)
    assert store.hard_state() == HardState()
    store.write([Output(1, HardState(3, 2, b"a:1"), append=_entries(1, 9))])
    store.write([Output(2, truncate_from=6, append=_entries(6, 7, 5)), Output(3, delete_to=2)])
    assert store.hard_state() == HardState(3, 2, b"a:1")
    assert (store.first_index(), store.last_index()) == (3, 7)
    entry = store.get(6)
    assert entry is not None
    assert entry.data == b"xxxxx"
    assert store.get(2) is None
    store.close()


def test_lmdb_grows_and_is_there_again(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, map_bytes=1 << 20)
    for i in range(8):
        store.write([Output(i, append=_entries(i * 10 + 1, i * 10 + 10, 100_000))])
    store.close()
    again = LmdbStore(tmp_path)
    assert (again.first_index(), again.last_index()) == (1, 80)
    again.close()


def test_unusable_directories_are_named(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "used")
    with pytest.raises(StoreError, match="in use by another process"):
        LmdbStore(tmp_path / "used")
    store.close()

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "raft.db").touch()
    with pytest.raises(StoreError, match="HashiCorp Consul"):
        LmdbStore(foreign)

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"damaged.*restore the directory from a backup"):
        LmdbStore(damaged)


@pytest.mark.parametrize("keep", [5000, 8192, 3 * 4096, 40 * 4096 + 100])
def test_log_that_lost_its_end_is_an_error_not_the_end_of_the_process(
    tmp_path: Path, keep: int
) -> None:
    store = LmdbStore(tmp_path)
    store.write([Output(1, HardState(3, 2, b"a:1"), append=_entries(1, 200, 3000))])
    store.close()
    os.truncate(tmp_path / "data.mdb", keep)

    def read_all() -> None:
        damaged = LmdbStore(tmp_path)
        try:
            for index in range(damaged.first_index(), damaged.last_index() + 1):
                damaged.get(index)
        finally:
            damaged.close()

    for _ in range(2):  # the first start must not make the second one trust the file
        with pytest.raises(StoreError, match=r"from a backup"):
            read_all()


def _take(store: FileSnapshotStore, index: int, data: bytes) -> None:
    sink = store.create(SnapshotMeta(index, 1, Configuration(), 0))
    sink.write(data)
    sink.commit()


def test_snapshots_are_kept_checked_and_reaped(tmp_path: Path) -> None:
    store = FileSnapshotStore(tmp_path)
    assert store.latest() is None
    for index in (5, 10, 15):
        _take(store, index, b"state %d" % index)
    assert [s.meta.index for s in store.list()] == [15, 10]
    newest = store.latest()
    assert newest is not None
    with store.open(newest) as reader:
        assert reader.read() == b"state 15"

    aborted = store.create(SnapshotMeta(20, 1, Configuration(), 0))
    aborted.write(b"half")
    aborted.abort()
    (newest.path / "state.bin").write_bytes(b"state 16")
    older = FileSnapshotStore(tmp_path).latest()
    assert older is not None
    assert older.meta.index == 10
    (older.path / "state.bin").write_bytes(b"")
    with pytest.raises(SnapshotError, match="intact"):
        store.latest()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(48.533e-6, "48.533µs"), (0.0125, "12.5ms"), (1.5, "1.5s"), (60.25, "1m0.25s"), (0, "0s")],
)
def test_durations_look_like_go(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
