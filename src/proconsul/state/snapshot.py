"""Snapshots in Consul's format (`agent/consul/fsm/snapshot_oss.go`).

A header `{LastIndex}`, then records: a type byte and a msgpack value. They are the state of one
moment: `dump` copies the tables' pointers at once and encodes while it is iterated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from proconsul.domain.base import GoStruct, decode, encode
from proconsul.domain.catalog import RegisterRequest
from proconsul.domain.connect import CAConfiguration, CAConsulProviderState, CARoot
from proconsul.domain.coordinate import NodeCoordinate
from proconsul.domain.federation import FEDERATION_UPSERT, FederationStateRequest
from proconsul.domain.kv import DirEntry
from proconsul.domain.messages import MessageType
from proconsul.domain.operator import AutopilotConfig
from proconsul.domain.session import Session
from proconsul.state import catalog, connect, coordinates, federation, kv, opaque, sessions
from proconsul.state.chunking import Chunker
from proconsul.state.errors import FsmError, StateError
from proconsul.state.tables import (
    CA_PROVIDER,
    CA_ROOTS,
    COORDINATES,
    FEDERATION_STATES,
    KVS,
    SESSIONS,
    Tables,
    Transaction,
)
from proconsul.util.errors import WireError
from proconsul.wire import msgpack
from proconsul.wire.msgpack import StreamSplitter

_CHUNK_BYTES = 64 << 10


class IndexEntry(GoStruct, frozen=True, gc=False):
    """One row of the index table."""

    key: str = ""
    value: int = 0


class _Header(GoStruct, frozen=True, gc=False):
    last_index: int = 0


def dump(tables: Tables, last_index: int, chunker: Chunker) -> Iterator[bytes]:
    """The snapshot in pieces of about 64 KiB; later writes do not show in it."""
    records = _records(tables, chunker)
    return _pieces(encode(_Header(last_index)), records)


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
    nodes = [
        (
            t.nodes[key],
            [row for _, row in sorted(t.services.get(key, {}).items())],
            [row for _, row in sorted(t.checks.get(key, {}).items())],
        )
        for key in sorted(t.nodes)
    ]
    kvs = t.kvs.copy()
    stones = [DirEntry(key=key, modify_index=index) for key, index in sorted(t.tombstones.items())]
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
        _plain(MessageType.KVS, kvs.values()),
        _plain(MessageType.TOMBSTONE, stones),
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


def _registrations(
    nodes: list[tuple[Any, list[Any], list[Any]]],
) -> Iterator[tuple[MessageType, bytes]]:
    for node, services, checks in nodes:
        for service, check in (
            (None, None),
            *((row, None) for row in services),
            *((None, row) for row in checks),
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


def load(pieces: Iterable[bytes]) -> tuple[Tables, Chunker]:
    """Read a snapshot into new tables.

    Raises `FsmError` if it is damaged, truncated or has a record of unknown type.
    """
    tables, chunker = Tables(), Chunker()
    reader = _Reader(pieces)
    try:
        header = decode(reader.value(), _Header)
        tx = Transaction(tables, header.last_index, preserve=True)
        while (type_ := reader.byte()) is not None:
            body = reader.value()
            if type_ == MessageType.CHUNKING_STATE:
                chunker.load(body)
                continue
            _restore(tx, type_, body)
            tx.forget()
    except (WireError, StateError) as error:
        raise FsmError(f"snapshot cannot be restored: {error}") from error
    return tables, chunker


class _Reader:
    """Type bytes and whole msgpack values from pieces of any size."""

    __slots__ = ("_pieces", "_splitter")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._splitter = StreamSplitter()

    def _more(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._splitter.feed(piece)
                return True
        return False

    def byte(self) -> int | None:
        """The next byte, or None at the end."""
        while not self._splitter.buffered:
            if not self._more():
                return None
        data = self._splitter.next_raw(1)
        return data[0] if data else None

    def value(self) -> bytes:
        while (value := self._splitter.next()) is None:
            if not self._more():
                raise FsmError("snapshot is truncated")
        return value


def _restore(tx: Transaction, number: int, body: bytes) -> None:
    try:
        type_ = MessageType(number)
    except ValueError:
        raise FsmError(f"Unrecognized msg type {number}") from None
    if type_ is MessageType.CONFIG_ENTRY or type_ in opaque.RECORDS:
        opaque.restore(tx, type_, body)
        return
    restorer = _RESTORERS.get(type_)
    if restorer is None:
        raise FsmError(f"snapshot has a record of type {type_.name}, which cannot be restored")
    restorer(tx, body)


def _register(tx: Transaction, body: bytes) -> None:
    catalog.ensure_registration(tx, decode(body, RegisterRequest))


def _kv(tx: Transaction, body: bytes) -> None:
    row = decode(body, DirEntry)
    kv.insert(tx, row)
    tx.raise_to(KVS, row.modify_index)


def _tombstone(tx: Transaction, body: bytes) -> None:
    row = decode(body, DirEntry)
    kv.add_tombstone(tx, row.key, row.modify_index)


def _session(tx: Transaction, body: bytes) -> None:
    row = decode(body, Session)
    sessions.insert(tx, row)
    tx.raise_to(SESSIONS, row.modify_index)


def _coordinates(tx: Transaction, body: bytes) -> None:
    for row in decode(body, list[NodeCoordinate]):
        coordinates.insert(tx, row)
    tx.raise_to(COORDINATES, tx.index)


def _autopilot(tx: Transaction, body: bytes) -> None:
    tx.put(tx.t.autopilot, "", decode(body, AutopilotConfig))


def _ca_root(tx: Transaction, body: bytes) -> None:
    row = decode(body, CARoot)
    connect.insert_root(tx, row)
    tx.raise_to(CA_ROOTS, row.modify_index)


def _ca_provider(tx: Transaction, body: bytes) -> None:
    row = decode(body, CAConsulProviderState)
    tx.put(tx.t.ca_provider_states, row.id, row)
    tx.raise_to(CA_PROVIDER, row.modify_index)


def _ca_config(tx: Transaction, body: bytes) -> None:
    connect.restore_config(tx, decode(body, CAConfiguration))


def _federation(tx: Transaction, body: bytes) -> None:
    row = decode(body, FederationStateRequest).state
    if row is None:
        raise FsmError("snapshot has an empty federation state")
    federation.insert(tx, row)
    tx.raise_to(FEDERATION_STATES, row.modify_index)


def _index(tx: Transaction, body: bytes) -> None:
    entry = decode(body, IndexEntry)
    tx.bump(entry.key, entry.value)


_RESTORERS: dict[MessageType, Callable[[Transaction, bytes], None]] = {
    MessageType.REGISTER: _register,
    MessageType.KVS: _kv,
    MessageType.TOMBSTONE: _tombstone,
    MessageType.SESSION: _session,
    MessageType.COORDINATE_BATCH_UPDATE: _coordinates,
    MessageType.AUTOPILOT: _autopilot,
    MessageType.CONNECT_CA: _ca_root,
    MessageType.CONNECT_CA_PROVIDER_STATE: _ca_provider,
    MessageType.CONNECT_CA_CONFIG: _ca_config,
    MessageType.FEDERATION_STATE: _federation,
    MessageType.INDEX: _index,
}
