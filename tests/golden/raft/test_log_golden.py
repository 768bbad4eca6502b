"""A log that real Consul 1.8.7 wrote, with every command it can be made to write, applied by us.

Our state must then have the records of Consul's own snapshot, field by field, and what Consul
refused must be refused with its words.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import pytest

from proconsul.domain import catalog, connect, federation, kv, operator, session, txn
from proconsul.domain.base import decode, encode
from proconsul.domain.coordinate import NodeCoordinate
from proconsul.domain.messages import IGNORE_UNKNOWN_TYPE_FLAG, MessageType
from proconsul.state.fsm import Fsm
from proconsul.wire.raft import Entry, LogType, decode_entry, encode_entry

HERE = Path(__file__).parent


def _unpacked(text: str) -> bytes:
    """The reverse of `capture.packed`."""
    return zlib.decompress(base64.b64decode(text[1:])) if text[:1] == "z" else bytes.fromhex(text)


LOG = [
    Entry(
        line["index"], line["term"], LogType(line["type"]),
        _unpacked(line["data"]), bytes.fromhex(line["extensions"]),
    )
    for line in map(json.loads, (HERE / "log.jsonl").read_text().splitlines())
]  # fmt: skip
COMMANDS = [entry for entry in LOG if entry.type is LogType.COMMAND]
STATES = {
    name: _unpacked(text) for name, text in json.loads((HERE / "states.json").read_text()).items()
}

OUR_REQUESTS: dict[int, Any] = {
    MessageType.REGISTER: catalog.RegisterRequest,
    MessageType.DEREGISTER: catalog.DeregisterRequest,
    MessageType.KVS: kv.KVSRequest,
    MessageType.SESSION: session.SessionRequest,
    MessageType.COORDINATE_BATCH_UPDATE: list[NodeCoordinate],
    MessageType.TXN: txn.TxnRequest,
    MessageType.AUTOPILOT: operator.AutopilotSetConfigRequest,
    MessageType.CONNECT_CA: connect.CARequest,
    MessageType.CONNECT_CA_LEAF: connect.CALeafRequest,
    MessageType.FEDERATION_STATE: federation.FederationStateRequest,
}
"""Types whose requests have structs here."""

NOT_WRITTEN = {
    MessageType.TOMBSTONE,  # Consul reaps a quarter of an hour after the deletion
    MessageType.AREA,  # Enterprise
    MessageType.CONNECT_CA_PROVIDER_STATE, MessageType.CONNECT_CA_CONFIG,
    MessageType.INDEX, MessageType.CHUNKING_STATE,  # in snapshots only
}  # fmt: skip


def test_every_type_was_captured() -> None:
    types = {
        entry.data[0] & ~IGNORE_UNKNOWN_TYPE_FLAG for entry in COMMANDS if not entry.extensions
    }
    assert types == set(MessageType) - NOT_WRITTEN
    assert sum(bool(entry.extensions) for entry in COMMANDS) > 1, "a command in chunks"


def test_entries_are_stored_as_consul_stores_them() -> None:
    for entry in LOG:
        fields = {
            "Data": entry.data or None, "Extensions": entry.extensions or None,
            "Index": entry.index, "Term": entry.term, "Type": int(entry.type),
        }  # fmt: skip
        wire = msgpack.packb(fields, use_bin_type=False)
        assert decode_entry(wire) == entry
        assert msgpack.unpackb(encode_entry(entry), raw=True) == msgpack.unpackb(wire, raw=True)


def _requests() -> list[tuple[int, bytes]]:
    return [
        (kind, entry.data[1:])
        for entry in COMMANDS
        if not entry.extensions
        and (kind := entry.data[0] & ~IGNORE_UNKNOWN_TYPE_FLAG) in OUR_REQUESTS
    ]


@pytest.mark.parametrize("kind", sorted(OUR_REQUESTS), ids=lambda kind: MessageType(kind).name)
def test_our_requests_lose_nothing(kind: int) -> None:
    """What we would write instead has the same fields with the same values."""
    bodies = [body for type_, body in _requests() if type_ == kind]
    assert bodies
    for body in bodies:
        ours = encode(decode(body, OUR_REQUESTS[kind]))
        assert msgpack.unpackb(ours, raw=True) == msgpack.unpackb(body, raw=True)


def _apply() -> tuple[Fsm, dict[int, object]]:
    fsm = Fsm()
    fsm.restore([STATES["before"]])
    results = {
        entry.index: fsm.apply(entry.index, entry.data, entry.extensions, entry.term)
        for entry in COMMANDS
    }
    return fsm, results


def _records(data: bytes) -> Counter[str]:
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed(data)
    unpacker.unpack()
    found: Counter[str] = Counter()
    while unpacker.tell() < len(data):
        type_ = unpacker.read_bytes(1)[0]
        value = unpacker.unpack()
        if type_ == MessageType.CONFIG_ENTRY:  # a raw with two values inside
            inner = msgpack.Unpacker(raw=True, strict_map_key=False)
            inner.feed(value)
            kind, request = inner.unpack(), inner.unpack()
            if isinstance(request[b"Entry"], bytes):
                request[b"Entry"] = msgpack.unpackb(request[b"Entry"], raw=True)
            value = [kind, request]
        found[f"{MessageType(type_).name} {_plain(value)!r}"] += 1
    return found


def _derived(record: str) -> bool:
    """The index of what Consul derives from gateways' config entries, and derives anew from ours."""
    return record.startswith("INDEX [(b'Key', b'gateway-services')")


def _plain(value: Any) -> Any:
    """Maps in a fixed order, so that representations can be compared."""
    if isinstance(value, dict):
        return sorted((key, _plain(item)) for key, item in value.items())
    return [_plain(item) for item in value] if isinstance(value, list) else value


def test_applying_the_log_leads_to_consuls_state() -> None:
    fsm, _ = _apply()
    ours, theirs = _records(b"".join(fsm.snapshot())), _records(STATES["after"])
    assert sorted((ours - theirs).elements()) == []
    assert [record for record in sorted((theirs - ours).elements()) if not _derived(record)] == []


def test_restoring_and_writing_a_snapshot_loses_nothing() -> None:
    for state in STATES.values():
        fsm = Fsm()
        fsm.restore([state])
        assert _records(b"".join(fsm.snapshot())) == _records(state)


def test_what_consul_refused_is_refused_with_its_words() -> None:
    _, results = _apply()
    refused = [str(result) for result in results.values() if isinstance(result, Exception)]
    assert [text.partition(" (ID")[0] for text in refused] == [
        "name 'q1b' aliases an existing query name",
        'discovery chain "plain" uses a protocol "tcp" that does not permit advanced routing or '
        "splitting behavior",
        'discovery chain "web" uses inconsistent protocols; service "db" has "http" which is not '
        '"tcp"',
        "duplicate intention found: DENY default/web => default/db",
    ]
