"""What a disk does to Raft's log and snapshots: they read as written, or are refused. Never otherwise."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proconsul.core.raft.types import HardState, Output, SnapshotMeta
from proconsul.drivers.raft.snapshots import FileSnapshotStore
from proconsul.drivers.raft.store import LmdbStore, StoreError
from proconsul.wire.raft import Configuration, Entry, LogType, Server, Suffrage

_HARD = HardState(7, 6, b"10.0.0.1:8300")
_ENTRIES = [Entry(i, 1 + i // 20, LogType.COMMAND, b"%d " % i * (i % 90)) for i in range(1, 61)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with a large entry, deleted pages and all."""
    path = tmp_path_factory.mktemp("log")
    store = LmdbStore(path)
    store.write([Output(1, HardState(3), append=_ENTRIES[:40])])
    store.write([Output(2, truncate_from=31)])
    store.write([Output(3, _HARD, append=_ENTRIES[30:])])
    store.write([Output(4, delete_to=5)])
    store.close()
    return path


def _read(path: Path) -> tuple[HardState, list[Entry]]:
    store = LmdbStore(path)
    try:
        found = []
        for index in range(store.first_index(), store.last_index() + 1):
            entry = store.get(index)
            assert entry is not None
            found.append(entry)
        return store.hard_state(), found
    finally:
        store.close()


@settings(
    derandomize=True, max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.lists(st.tuples(st.integers(0), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bits_of_the_log(sound: Path, flips: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "raft"
        shutil.copytree(sound, path)
        data = bytearray((path / "data.mdb").read_bytes())
        for at, mask in flips:
            data[at % len(data)] ^= mask
        (path / "data.mdb").write_bytes(data)
        try:
            assert _read(path) == (_HARD, _ENTRIES[5:])
        except StoreError:
            return


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(0), st.integers(0, 255), st.sampled_from(["state.bin", "meta.json"]))
def test_flipped_bits_of_a_snapshot(at: int, mask: int, name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        store = FileSnapshotStore(scratch)
        meta = SnapshotMeta(9, 3, Configuration((Server(Suffrage.VOTER, "a", "10.0.0.1:8300"),)), 2)
        sink = store.create(meta)
        sink.write(b"the state" * 20)
        file = sink.commit().path / name
        data = bytearray(file.read_bytes())
        data[at % len(data)] ^= mask
        file.write_bytes(data)
        found = next(store.intact(), None)
        if found is None:
            return
        assert found.meta == meta
        with store.open(found) as reader:
            assert reader.read() == b"the state" * 20
