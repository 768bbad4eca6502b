"""Snapshots in Consul's format (`agent/consul/fsm/snapshot_oss.go`).

A header `{LastIndex}`, then records: a type byte and a msgpack value. They are the state of one
moment, though encoded while they are drawn: of nodes, keys and tombstones, which may be many, the old
rows are kept as they change (`frozen`), of the other tables the pointers are copied at once.
`restore` reads the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter

from proconsul.domain.base import GoStruct, encode
from proconsul.domain.catalog import RegisterRequest
from proconsul.domain.federation import FEDERATION_UPSERT, FederationStateRequest
from proconsul.domain.kv import DirEntry
from proconsul.domain.messages import MessageType
from proconsul.state import opaque
from proconsul.state.chunking import Chunker
from proconsul.state.frozen import View
from proconsul.state.tables import NodeRows, Tables
from proconsul.wire import msgpack

_CHUNK_BYTES = 64 << 10


class IndexEntry(GoStruct, frozen=True, gc=False):
    """One row of the index table."""

    key: str = ""
    value: int = 0


class Header(GoStruct, frozen=True, gc=False):
    """What a snapshot begins with."""

    last_index: int = 0


def dump(tables: Tables, last_index: int, chunker: Chunker) -> Iterator[bytes]:
    """The snapshot in pieces of about 64 KiB; later writes do not show in it."""
    records = _records(tables, chunker)
    return _pieces(encode(Header(last_index)), records)


def _pieces(header: bytes, records: list[Iterator[tuple[MessageType, bytes]]]) -> Iterator[bytes]:
    piece = bytearray(header)
    for group in records:
        for type_, body in group:
            piece.append(type_)
            piece += body
            if len(piece) >= _CHUNK_BYTES:
                yield bytes(piece)
                piece.clear()
    yield bytes(piece)


def _records(t: Tables, chunker: Chunker) -> list[Iterator[tuple[MessageType, bytes]]]:
    """One group after the other, in Consul's order. Copies happen here, encoding later."""
    nodes, kvs, stones = t.node_views.open(), t.kv_views.open(), t.tombstone_views.open()
    states = [
        FederationStateRequest(op=FEDERATION_UPSERT, state=row)
        for _, row in sorted(t.federation_states.items())
    ]
    index = [IndexEntry(key, value) for key, value in sorted(t.index.items())]
    opaque_rows = [(type_, list(rows.values())) for type_, rows in sorted(t.opaque.items())]
    entries = [t.config_entries[key] for key in sorted(t.config_entries)]
    chunks = chunker.dump()
    return [
        _registrations(nodes),
        (
            (MessageType.COORDINATE_BATCH_UPDATE, encode([row]))
            for row in list(t.coordinates.values())
        ),
        _plain(MessageType.SESSION, list(t.sessions.values())),
        _keys(kvs),
        _tombstones(stones),
        _plain(MessageType.AUTOPILOT, list(t.autopilot.values())),
        _plain(MessageType.CONNECT_CA, list(t.ca_roots.values())),
        _plain(MessageType.CONNECT_CA_PROVIDER_STATE, list(t.ca_provider_states.values())),
        _plain(MessageType.CONNECT_CA_CONFIG, list(t.ca_config.values())),
        ((MessageType(type_), msgpack.pack(row)) for type_, rows in opaque_rows for row in rows),
        ((MessageType.CONFIG_ENTRY, opaque.encode_config_entry(row)) for row in entries),
        _plain(MessageType.FEDERATION_STATE, states),
        _plain(MessageType.INDEX, index),
        iter([(MessageType.CHUNKING_STATE, chunks)]),
    ]


def _plain(type_: MessageType, rows: Iterable[object]) -> Iterator[tuple[MessageType, bytes]]:
    return ((type_, encode(row)) for row in rows)


def _keys(view: View[DirEntry]) -> Iterator[tuple[MessageType, bytes]]:
    for _, row in view:
        yield MessageType.KVS, encode(row)


def _tombstones(view: View[int]) -> Iterator[tuple[MessageType, bytes]]:
    for key, index in view:
        yield MessageType.TOMBSTONE, encode(DirEntry(key=key, modify_index=index))


def _registrations(view: View[NodeRows]) -> Iterator[tuple[MessageType, bytes]]:
    for _, (node, services, checks) in view:
        for service, check in (
            (None, None),
            *((row, None) for _, row in sorted(services.items(), key=itemgetter(0))),
            *((None, row) for _, row in sorted(checks.items(), key=itemgetter(0))),
        ):
            request = RegisterRequest(
                datacenter=node.datacenter,
                id=node.id,
                node=node.node,
                address=node.address,
                tagged_addresses=node.tagged_addresses,
                node_meta=node.meta,
                service=service,
                check=check,
                create_index=node.create_index,
                modify_index=node.modify_index,
            )
            yield MessageType.REGISTER, encode(request)
