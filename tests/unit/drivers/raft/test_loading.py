"""Snapshots on disk, and which of them goes with the log at the start."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from proconsul.core.raft.log import Compacted
from proconsul.core.raft.types import HardState, Output, SnapshotMeta
from proconsul.drivers.raft import snapshots as snapshots_module
from proconsul.drivers.raft.loading import load
from proconsul.drivers.raft.recovery import last_members
from proconsul.drivers.raft.snapshots import (
    FileSnapshotStore,
    NotTakenBack,
    Snapshot,
    SnapshotError,
)
from proconsul.drivers.raft.store import LmdbStore, MemoryStore, Store
from proconsul.wire.raft import Configuration, Entry, LogType, Server, Suffrage

ONE = Configuration((Server(Suffrage.VOTER, "one", "10.0.0.1:8300"),))


def take(store: FileSnapshotStore, index: int, term: int = 1) -> Snapshot:
    sink = store.create(SnapshotMeta(index, term, ONE, 0))
    sink.write(b"state %d" % index)
    snapshot = sink.commit()
    store.reap(snapshot)
    return snapshot


def log_of(terms: list[int], first: int = 1) -> Store:
    """A log whose entries have these terms."""
    store = MemoryStore()
    entries = [Entry(first + i, term, LogType.NOOP, b"") for i, term in enumerate(terms)]
    store.write([Output(1, HardState(9), append=entries)])
    return store


def names(store: FileSnapshotStore) -> list[tuple[int, int]]:
    return [(s.meta.index, s.meta.term) for s in store.list()]


def test_snapshots_are_kept_checked_and_reaped(tmp_path: Path) -> None:
    store = FileSnapshotStore(tmp_path)
    assert list(store.intact()) == []
    take(store, 5)
    take(store, 10)
    newest = take(store, 15)
    assert names(store) == [(15, 1), (10, 1)]
    with store.open(newest) as reader:
        assert reader.read() == b"state 15"

    aborted = store.create(SnapshotMeta(20, 1, Configuration(), 0))
    aborted.write(b"half")
    with aborted.open() as reader:
        assert reader.read() == b"half"
    aborted.abort()
    (newest.path / "state.bin").write_bytes(b"state 16")
    store = FileSnapshotStore(tmp_path)
    (older,) = store.intact()
    assert older.meta.index == 10
    assert store.find(10, 1) == older
    assert store.find(15, 1) is None
    (older.path / "state.bin").write_bytes(b"")
    with pytest.raises(SnapshotError, match="intact"):
        load(log_of([1, 1, 1], first=11), store)


def test_what_replaces_a_later_snapshot_is_not_reaped(tmp_path: Path) -> None:
    store = FileSnapshotStore(tmp_path)
    for index in (30, 40):
        take(store, index, term=5)
    take(store, 20, term=3)
    assert names(store) == [(40, 5), (20, 3)]


@pytest.mark.parametrize(
    ("terms", "term"),
    [([1, 1, 1, 1, 1, 2, 2, 2], 1), ([1, 1, 1, 1, 2], 1), ([1, 1, 1, 1, 1, 1, 3], 2)],
)
def test_a_snapshot_that_never_had_a_quorum_gives_way_to_the_log(
    tmp_path: Path, terms: list[int], term: int
) -> None:
    """A leader put a snapshot from outside at 6; that of a later term knew nothing of it."""
    store, raft_log = FileSnapshotStore(tmp_path), log_of(terms)
    take(store, 3)
    take(store, 6, term=term)
    assert last_members(raft_log, store) == ONE
    snapshot, _, log = load(raft_log, store)
    assert snapshot is not None
    assert (snapshot.meta.index, log.last_index) == (3, len(terms))
    assert not log.discard_needed()
    assert names(store) == [(3, 1)]


@pytest.mark.parametrize("terms", [[1, 1, 1, 2, 2], [1] * 5 + [2], [1, 1, 1], [2] * 7, [3] * 4])
def test_a_snapshot_that_the_log_does_not_contradict_counts(
    tmp_path: Path, terms: list[int]
) -> None:
    """It is newer than the log, or the log has its end: at 6, of the log's term or of term 2."""
    store = FileSnapshotStore(tmp_path)
    take(store, 6, term=max(2, terms[-1]))
    snapshot, _, log = load(log_of(terms), store)
    assert snapshot is not None
    assert log.snapshot_index == 6


def test_a_log_without_its_beginning_needs_its_own_snapshot(tmp_path: Path) -> None:
    store = FileSnapshotStore(tmp_path)
    take(store, 10, term=1)
    take(store, 7, term=3)  # put there by a leader of term 3, and replaced since
    snapshot, _, log = load(log_of([1, 4], first=11), store)
    assert snapshot is not None
    assert (snapshot.meta.index, log.last_index) == (10, 12)
    store.delete(snapshot)
    with pytest.raises(Compacted):
        load(log_of([1, 4], first=11), store)


def test_strangers_and_halves_do_no_harm(tmp_path: Path) -> None:
    store = FileSnapshotStore(tmp_path)
    for name in ("lost+found", "1-5-17.tmp"):
        (store.path / name).mkdir()
    (store.path / ".nfs0001").touch()
    LmdbStore(tmp_path).close()  # the first start ever
    assert load(MemoryStore(), store)[0] is None
    (store.path / "1-5-17").mkdir()  # its deletion was cut short by the version before
    assert load(log_of([1] * 8), store)[0] is None
    with pytest.raises(SnapshotError, match="intact"):
        load(MemoryStore(), store)


def test_a_snapshot_goes_as_a_whole_or_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileSnapshotStore(tmp_path)
    snapshot = take(store, 5)
    monkeypatch.setattr(shutil, "rmtree", lambda *_a, **_k: None)
    store.delete(snapshot)
    assert names(store) == []
    monkeypatch.undo()
    assert list(FileSnapshotStore(tmp_path).path.iterdir()) == []
    with pytest.raises(NotTakenBack, match="must not count"):
        store.delete(snapshot)


def test_a_snapshot_whose_name_cannot_be_synced_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileSnapshotStore(tmp_path)
    sync, failures = snapshots_module.sync_directory, [OSError("I/O error")]

    def fails_once(path: Path) -> None:
        if path == store.path and failures:
            raise failures.pop()
        sync(path)

    monkeypatch.setattr(snapshots_module, "sync_directory", fails_once)
    sink = store.create(SnapshotMeta(5, 1, ONE, 0))
    with pytest.raises(SnapshotError, match="I/O error"):
        sink.commit()
    assert names(store) == []


def test_a_clock_that_goes_back_makes_no_newer_snapshot_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileSnapshotStore(tmp_path)
    clock = [10_000_000_000, 9_000_000_000, 5_000_000]
    monkeypatch.setattr(time, "time_ns", lambda: clock.pop(0))
    taken = [take(store, 5), take(store, 5), take(store, 5)]
    assert [s.path.name for s in taken] == ["1-5-10000", "1-5-10001", "1-5-10002"]
    assert store.list() == [taken[2], taken[1]]


def test_new_directories_are_there_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(snapshots_module, "sync_directory", synced.append)
    LmdbStore(tmp_path / "data" / "raft").close()
    assert {tmp_path, tmp_path / "data"} <= set(synced)
    FileSnapshotStore(tmp_path / "data" / "raft")
    assert synced[-1] == tmp_path / "data" / "raft"
    count = len(synced)
    FileSnapshotStore(tmp_path / "data" / "raft")
    assert len(synced) == count
