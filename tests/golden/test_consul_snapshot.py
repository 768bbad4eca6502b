"""A snapshot and HTTP answers captured from one Consul 1.8.7 at one moment.

The snapshot (without the CA's private key record) is restored here, and our answers must be byte
for byte those that Consul gave, with the same X-Consul-Index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from proconsul.domain.base import decode, encode
from proconsul.domain.catalog import RegisterRequest
from proconsul.domain.connect import CAConfiguration, CARoot
from proconsul.domain.coordinate import NodeCoordinate
from proconsul.domain.federation import FederationStateRequest
from proconsul.domain.go_json import to_json
from proconsul.domain.kv import DirEntry
from proconsul.domain.messages import MessageType
from proconsul.domain.operator import AutopilotConfig
from proconsul.domain.session import Session
from proconsul.interfaces.http import views
from proconsul.interfaces.http.kv import entries_view
from proconsul.state.fsm import Fsm
from proconsul.state.store import Store

_DIRECTORY = Path(__file__).parent / "consul"
SNAPSHOT = (_DIRECTORY / "state.bin").read_bytes()
HTTP = [json.loads(line) for line in (_DIRECTORY / "http.jsonl").read_text().splitlines()]

_TYPES: dict[int, Any] = {
    MessageType.REGISTER: RegisterRequest,
    MessageType.KVS: DirEntry,
    MessageType.TOMBSTONE: DirEntry,
    MessageType.SESSION: Session,
    MessageType.COORDINATE_BATCH_UPDATE: list[NodeCoordinate],
    MessageType.AUTOPILOT: AutopilotConfig,
    MessageType.CONNECT_CA: CARoot,
    MessageType.CONNECT_CA_CONFIG: CAConfiguration,
    MessageType.FEDERATION_STATE: FederationStateRequest,
}


def _records(data: bytes) -> list[tuple[int, Any, bytes]]:
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed(data)
    unpacker.unpack()
    found = []
    while unpacker.tell() < len(data):
        type_ = unpacker.read_bytes(1)[0]
        start = unpacker.tell()
        found.append((type_, unpacker.unpack(), data[start : unpacker.tell()]))
    return found


@pytest.fixture
def store() -> Store:
    fsm = Fsm()
    fsm.restore(SNAPSHOT[at : at + 777] for at in range(0, len(SNAPSHOT), 777))
    return fsm.store


def test_every_record_is_decoded_and_encoded_without_loss() -> None:
    seen = set()
    for type_, value, body in _records(SNAPSHOT):
        if type_ in _TYPES:
            seen.add(type_)
            again = encode(decode(body, _TYPES[type_]))
            assert msgpack.unpackb(again, raw=True, strict_map_key=False) == value
    assert seen == set(_TYPES)


def _plain(value: Any) -> Any:
    """Maps in a fixed order, so that representations can be compared."""
    if isinstance(value, dict):
        return sorted((key, _plain(item)) for key, item in value.items())
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _canonical(data: bytes) -> list[str]:
    found = []
    for type_, value, _ in _records(data):
        if type_ == MessageType.CONFIG_ENTRY:  # a raw with two values inside
            unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
            unpacker.feed(value)
            kind, request = unpacker.unpack(), unpacker.unpack()
            if isinstance(request[b"Entry"], bytes):
                request[b"Entry"] = msgpack.unpackb(request[b"Entry"], raw=True)
            found.append(repr((type_, _plain([kind, request]))))
            continue
        found.append(repr((type_, _plain(value))))
    return sorted(found)


def test_our_snapshot_has_the_same_records() -> None:
    fsm = Fsm()
    fsm.restore([SNAPSHOT])
    assert _canonical(b"".join(fsm.snapshot())) == _canonical(SNAPSHOT)


def _answer(store: Store, path: str) -> tuple[int, object]:
    """What the endpoint behind `path` would say: index and JSON-ready value."""
    catalog = store.catalog
    name = path.rsplit("/", 1)[1]
    many: dict[str, Any] = {
        "catalog/nodes": lambda: (catalog.nodes(), views.nodes),
        "catalog/service": lambda: (catalog.service_nodes(name), views.service_nodes),
        "health/node": lambda: (catalog.node_checks(name), views.checks),
        "health/checks": lambda: (catalog.service_checks(name), views.checks),
        "health/state": lambda: (catalog.checks_in_state(name), views.checks),
        "health/service": lambda: (catalog.check_service_nodes(name), views.check_service_nodes),
        "internal/federation-states": lambda: (store.federation.all(), views.federation_states),
        "internal/ui": lambda: (catalog.node_dump(), _each(views.node_info)),
        "kv/?recurse": lambda: (store.kv.entries(""), entries_view),
        "kv/?keys": lambda: (store.kv.keys(""), list),
        "catalog/services": lambda: (catalog.services(), dict),
        "coordinate/nodes": lambda: (store.coordinates.all(), _each(views.node_coordinate)),
        "coordinate/node": lambda: (
            store.coordinates.of_node(name),
            _each(views.node_coordinate),
        ),
    }
    if path == "internal/federation-states/mesh-gateways":
        index, states, _ = store.federation.all()
        return index, {
            state.datacenter: views.check_service_nodes(state.mesh_gateways or (), nulls=True)
            for state in states
        }
    if path == "kv/locked":
        index, row, _ = store.kv.get("locked")
        return index, entries_view([row]) if row else []
    group = "/".join(path.split("/")[:2])
    if group in {"catalog/node", "catalog/node-services"}:
        return _node_answer(store, name, listed=group == "catalog/node-services")
    (index, rows, _), view = many[group]()
    return index, view(rows)


def _each(view: Callable[[Any], object]) -> Callable[[Iterable[Any]], list[object]]:
    return lambda rows: [view(row) for row in rows]


def _node_answer(store: Store, name: str, *, listed: bool) -> tuple[int, object]:
    index, found, _ = store.catalog.node_services(name)
    if found is None:
        return index, {"Node": None, "Services": None} if listed else None
    by_id = {key: views.service(one) for key, one in sorted((found.services or {}).items())}
    services = (list(by_id.values()) or None) if listed else by_id
    return index, {"Node": views.node(found.node), "Services": services}


@pytest.mark.parametrize("sample", HTTP, ids=lambda sample: str(sample["path"]))
def test_json_is_byte_for_byte_that_of_consul(store: Store, sample: dict[str, Any]) -> None:
    index, value = _answer(store, sample["path"])
    assert to_json(value).decode() == sample["body"]
    assert sample["index"] in {None, index}


def test_replaying_the_log_gives_the_snapshot() -> None:
    """The Raft log that led to the snapshot (again without private keys), applied by us."""
    fsm = Fsm()
    results = {
        index: fsm.apply(index, data, b"", term)
        for index, term, data in msgpack.unpackb((_DIRECTORY / "raft_log.bin").read_bytes())
    }
    assert str(results[38]) == "Invalid KVS operation 'nonsense'"
    assert results[9] is True  # the CA's roots were set
    ours, theirs = _canonical(b"".join(fsm.snapshot())), _canonical(SNAPSHOT)
    assert _without_provider(ours) == _without_provider(theirs)


def _without_provider(records: list[str]) -> list[str]:
    """Without the built-in CA provider's rows and indexes, whose commands held the key."""
    return [
        record
        for record in records
        if not record.startswith("(14,") and "connect-ca-builtin" not in record
    ]
