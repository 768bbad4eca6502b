"""The log on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from proconsul.core.raft.types import HardState, Output
from proconsul.drivers.raft import records
from proconsul.drivers.raft.store import LmdbStore, MemoryStore, Store, StoreError
from proconsul.wire.raft import Entry, LogType, encode_entry


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
        store.write([Output(i, HardState(1), append=_entries(i * 10 + 1, i * 10 + 10, 100_000))])
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
    with pytest.raises(StoreError, match=r"damaged.*restore the raft directory from a backup"):
        LmdbStore(damaged)


def test_lost_logs_are_not_replaced_by_empty_ones(tmp_path: Path) -> None:
    LmdbStore(tmp_path).close()
    (tmp_path / "data.mdb").unlink()
    with pytest.raises(StoreError, match=r"data.mdb is missing, but there was one.*from a backup"):
        LmdbStore(tmp_path)
    (tmp_path / "data.mdb").touch()
    with pytest.raises(StoreError, match=r"data.mdb is empty.*from a backup"):
        LmdbStore(tmp_path)

    beside = tmp_path / "beside"
    (beside / "snapshots" / "1-5-1700000000000").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"data.mdb is missing"):
        LmdbStore(beside)

    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "raft"):
        with pytest.raises(StoreError, match=r"file is a file where a directory .* should be"):
            LmdbStore(path)


def test_a_first_start_that_was_cut_short_is_no_loss(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "data.mdb").touch()
    (tmp_path / "in-use.lock").touch()
    (tmp_path / "snapshots" / "lost+found").mkdir(parents=True)
    LmdbStore(tmp_path).close()


_SLOW_PROBE = """
import sys
from proconsul.drivers.raft import records
from proconsul.drivers.raft.store import LmdbStore

def check(file):
    print("probing", flush=True)
    sys.stdin.read()

records._check_heads = check
LmdbStore(sys.argv[1])
"""


def test_a_start_that_was_killed_leaves_the_directory_free(tmp_path: Path) -> None:
    LmdbStore(tmp_path).close()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW_PROBE, str(tmp_path)], stdin=pipe, stdout=pipe
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"probing\n"
        killed.kill()
        assert killed.wait() < 0
        LmdbStore(tmp_path).close()  # though what it had begun goes on


def _conf(path: Path, change: Callable[[lmdb.Transaction, Any, Any], None]) -> None:
    env = lmdb.open(str(path), max_dbs=4)
    logs, conf = env.open_db(b"logs"), env.open_db(b"conf")
    with env.begin(write=True) as txn:
        change(txn, logs, conf)
    env.close()


def test_formats(tmp_path: Path) -> None:
    def first(txn: lmdb.Transaction, logs: Any, conf: Any) -> None:
        for entry in _entries(4, 6):
            txn.put(entry.index.to_bytes(8, "big"), encode_entry(entry), db=logs)
        for key, value in ((b"CurrentTerm", 3), (b"LastVoteTerm", 2)):
            txn.put(key, value.to_bytes(8, "big"), db=conf)
        txn.put(b"LastVoteCand", b"a:1", db=conf)

    def later(txn: lmdb.Transaction, logs: Any, conf: Any) -> None:
        records.put(txn, conf, b"Format", (3).to_bytes(4, "big"))

    (tmp_path / "old").mkdir()
    _conf(tmp_path / "old", first)
    for _ in range(2):
        store = LmdbStore(tmp_path / "old")
        assert store.hard_state() == HardState(3, 2, b"a:1")
        assert [store.get(index) for index in range(4, 7)] == _entries(4, 6)
        store.close()
    assert (tmp_path / "old" / "in-use.lock").read_bytes()
    _conf(tmp_path / "old", later)
    with pytest.raises(StoreError, match=r"has format 3, this version knows 2: run the version"):
        LmdbStore(tmp_path / "old")


def test_a_large_log_of_the_first_format(tmp_path: Path) -> None:
    """Its pages can be used again only after the upgrade, so that its map has to grow for that."""

    def first(txn: lmdb.Transaction, logs: Any, conf: Any) -> None:
        for entry in _entries(1, 800, 900):
            txn.put(entry.index.to_bytes(8, "big"), encode_entry(entry), db=logs)
        txn.put(b"CurrentTerm", (1).to_bytes(8, "big"), db=conf)

    _conf(tmp_path, first)
    store = LmdbStore(tmp_path, map_bytes=1 << 20)
    assert (store.first_index(), store.last_index()) == (1, 800)
    assert store.get(799) == _entries(799, 799, 900)[0]
    assert store.hard_state().term == 1
    store.close()


def test_what_is_missing_from_a_log_is_noticed(tmp_path: Path) -> None:
    def without_vote(txn: lmdb.Transaction, logs: Any, conf: Any) -> None:
        txn.delete(b"HardState", db=conf)

    def without_entry(txn: lmdb.Transaction, logs: Any, conf: Any) -> None:
        txn.delete((7).to_bytes(8, "big"), db=logs)

    store = LmdbStore(tmp_path / "log")
    store.write([Output(1, HardState(3, 2, b"a:1"), append=_entries(1, 9))])
    store.close()
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    _conf(tmp_path / "log", without_vote)
    with pytest.raises(StoreError, match=r"term and vote are missing.*from a backup"):
        LmdbStore(tmp_path / "log")
    _conf(tmp_path / "copy", without_entry)
    with pytest.raises(StoreError, match=r"entry 7 is missing, 8 follows.*from a backup"):
        LmdbStore(tmp_path / "copy")


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
