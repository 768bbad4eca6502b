"""peers.json: a survivor of three takes its log along into a cluster of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from server_support import running, server_config

from proconsul.core.raft.types import HardState, Output
from proconsul.domain.kv import KV_SET, DirEntry, KVSRequest
from proconsul.domain.messages import MessageType, encode_command
from proconsul.drivers.raft.snapshots import FileSnapshotStore
from proconsul.drivers.raft.store import LmdbStore
from proconsul.services.server import peers_file
from proconsul.services.server.server import Server
from proconsul.testing.waiting import until
from proconsul.util.errors import ConfigError
from proconsul.util.metrics import Metrics
from proconsul.wire.raft import Configuration, Entry, LogType, Suffrage, encode_configuration
from proconsul.wire.raft import Server as RaftServer

THREE = Configuration(
    tuple(RaftServer(Suffrage.VOTER, f"id{i}", f"10.0.0.{i}:8300") for i in (1, 2, 3))
)
Disk = tuple[LmdbStore, FileSnapshotStore]


@contextmanager
def disk(path: Path) -> Iterator[Disk]:
    store = LmdbStore(path)
    try:
        yield store, FileSnapshotStore(path)
    finally:
        store.close()


def write(key: str, index: int) -> Entry:
    request = KVSRequest(op=KV_SET, dir_ent=DirEntry.of(key, b"v"))
    return Entry(index, 2, LogType.COMMAND, encode_command(MessageType.KVS, request))


def filled(store: LmdbStore) -> None:
    """Two keys behind the configuration, the second perhaps never committed."""
    entries = [
        Entry(1, 1, LogType.CONFIGURATION, encode_configuration(THREE)),
        write("a", 2),
        Entry(3, 2, LogType.NOOP, b""),
        write("b", 4),
    ]
    store.write([Output(1, hard_state=HardState(2, 2, b"x"), append=entries)])


def order(path: Path, peers: Any) -> None:
    (path / "peers.info").touch()
    text = peers if isinstance(peers, str) else json.dumps(peers)
    (path / "peers.json").write_text(text, encoding="utf-8")


def test_the_whole_log_becomes_a_snapshot_with_the_new_members(tmp_path: Path) -> None:
    with disk(tmp_path) as (store, snapshots):
        filled(store)
        order(
            tmp_path,
            [
                {"id": "id2", "address": "10.9.9.9:8300"},
                {"ID": "n", "Address": "a:1", "non_voter": True},
            ],
        )
        peers_file.obey(tmp_path, store, snapshots)
        assert not (tmp_path / "peers.json").exists()
        assert store.last_index() == 0
        assert store.hard_state().term == 2
        meta = snapshots.list()[0].meta
        assert (meta.index, meta.term, meta.configuration_index) == (4, 2, 1)
        assert [(s.id, s.address, s.suffrage) for s in meta.configuration.servers] == [
            ("id2", "10.9.9.9:8300", Suffrage.VOTER), ("n", "a:1", Suffrage.NONVOTER),
        ]  # fmt: skip
        with snapshots.open(snapshots.list()[0]) as state:
            data = state.read()
        assert b"\xa1a" in data
        assert b"\xa1b" in data
        # Once more, from the snapshot alone and in the form of protocol 2.
        order(tmp_path, ["10.9.9.9:8300"])
        peers_file.obey(tmp_path, store, snapshots)
        assert [s.id for s in snapshots.list()[0].meta.configuration.servers] == ["id2"]


def test_an_order_that_was_obeyed_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, bool]] = []
    peers = tmp_path / "peers.json"
    monkeypatch.setattr(
        peers_file, "sync_directory", lambda path: synced.append((path, peers.exists()))
    )
    with disk(tmp_path) as (store, snapshots):
        filled(store)
        order(tmp_path, [{"id": "id2", "address": "10.9.9.9:8300"}])
        peers_file.obey(tmp_path, store, snapshots)
    assert synced == [(tmp_path, False)]


def test_the_first_start_explains_and_obeys_nothing(tmp_path: Path) -> None:
    with disk(tmp_path) as (store, snapshots):
        filled(store)
        (tmp_path / "peers.json").write_text("[]")
        peers_file.obey(tmp_path, store, snapshots)
        assert "non_voter" in (tmp_path / "peers.info").read_text()
        assert not (tmp_path / "peers.json").exists()
        assert store.last_index() == 4
        peers_file.obey(tmp_path, store, snapshots)
        assert snapshots.list() == []


@pytest.mark.parametrize(
    ("peers", "text"),
    [
        ("{", "Expecting property name"),
        ("{}", "not a list of servers"),
        ("[]", "Need at least one voter"),
        ("[1]", "neither an object nor"),
        ([{"address": "a:1"}], "Empty ID"),
        ([{"id": "a"}], "Empty address"),
        ([{"id": 1, "address": "a:1"}], "have to be text"),
        ([{"id": "a", "address": "a:1", "non_voter": "x"}], "has to be true or false"),
        ([{"id": "a", "address": "a:1"}, {"id": "a", "address": "b:1"}], "duplicate ID"),
        ([{"id": "a", "address": "a:1", "non_voter": True}], "Need at least one voter"),
        (["10.0.0.7:8300"], 'the id of "10.0.0.7:8300" is not known here'),
        ("[" * 100_000, "correct the file"),
        (" " * (1 << 20) + "[]", "larger than"),
    ],
)
def test_a_wrong_file_is_kept_and_nothing_changes(tmp_path: Path, peers: Any, text: str) -> None:
    with disk(tmp_path) as (store, snapshots):
        filled(store)
        order(tmp_path, peers)
        with pytest.raises(ConfigError, match=r"recovery failed to parse peers\.json") as refusal:
            peers_file.obey(tmp_path, store, snapshots)
        assert text in str(refusal.value)
        assert (tmp_path / "peers.json").exists()
        assert (store.last_index(), snapshots.list()) == (4, [])


def test_a_server_that_never_had_a_cluster_refuses(tmp_path: Path) -> None:
    with disk(tmp_path) as (store, snapshots):
        order(tmp_path, [{"id": "a", "address": "a:1"}])
        with pytest.raises(ConfigError, match="refused to recover cluster with no initial state"):
            peers_file.obey(tmp_path, store, snapshots)


def test_a_survivor_of_three_goes_on_alone(tmp_path: Path) -> None:
    async def run() -> None:
        configs = [
            server_config(name, tmp_path / name, bootstrap_expect=3) for name in ("s1", "s2", "s3")
        ]
        servers = [Server(config, Metrics()) for config in configs]
        async with running(*servers):
            await until(lambda: any(s.ready_for_consistent_reads for s in servers))
            leader = next(s for s in servers if s.is_leader)
            request = KVSRequest(op=KV_SET, dir_ent=DirEntry.of("k", b"v"))
            await leader.apply(MessageType.KVS, request)
            index = leader.raft.last_index
            await until(lambda: all(s.raft.last_index >= index for s in servers))
        survivor = configs[1]
        address = f"127.0.0.1:{survivor.rpc_advertise[1]}"
        order(tmp_path / "s2" / "raft", [{"id": survivor.identity.node_id, "address": address}])
        alone = Server(survivor, Metrics())
        async with running(alone):
            await until(lambda: alone.ready_for_consistent_reads)
            assert alone.store.kv.get("k").value is not None
            await alone.apply(MessageType.KVS, request)
            peers = alone.views.peers().servers or []
            assert [(p.id, p.leader) for p in peers] == [(survivor.identity.node_id, True)]

    asyncio.run(run())


def test_a_wrong_file_keeps_a_server_from_starting(tmp_path: Path) -> None:
    async def run() -> None:
        server = Server(server_config("s1", tmp_path), Metrics())
        order(tmp_path / "raft", "x")
        with pytest.raises(ConfigError, match=r"peers\.json"):
            await server.start()
        await server.aclose()

    asyncio.run(run())
