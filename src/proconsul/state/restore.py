"""Restoring snapshots, ours and Consul's (`agent/consul/fsm/snapshot_oss.go`).

A million keys have to be back in a second or two, and a server that lives meanwhile must answer:
the new tables grow in short steps beside the old ones, keys by a path of their own, since there may
be so many.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

import msgpack
import msgspec

from proconsul.domain.base import decode
from proconsul.domain.catalog import RegisterRequest
from proconsul.domain.connect import CAConfiguration, CAConsulProviderState, CARoot
from proconsul.domain.coordinate import NodeCoordinate
from proconsul.domain.federation import FederationStateRequest
from proconsul.domain.kv import DirEntry
from proconsul.domain.messages import MessageType
from proconsul.domain.operator import AutopilotConfig
from proconsul.domain.session import Session
from proconsul.state import catalog, connect, coordinates, federation, kv, opaque, sessions
from proconsul.state.chunking import Chunker
from proconsul.state.errors import FsmError, StateError
from proconsul.state.snapshot import Header, IndexEntry
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

STEP_RECORDS = 1024
"""Records a step takes up: 1 to 3 ms."""
_VALUE_BYTES_MAX = 32 << 20


def load(pieces: Iterable[bytes]) -> Generator[None, None, tuple[Tables, Chunker]]:
    """Read a snapshot into new tables, which the generator returns after many short steps.

    Raises `FsmError` if it is damaged, truncated or has a record of unknown type.
    """
    tables, chunker = Tables(), Chunker()
    tx = Transaction(tables, 0, preserve=True)
    groups = _records(pieces)
    try:
        tx.index = decode(next(groups)[0], Header).last_index
        for records in groups:
            _keys(tables, [record for record in records if record[0] == MessageType.KVS])
            for record in records:
                if record[0] == MessageType.CHUNKING_STATE:
                    chunker.load(record[1:])
                elif record[0] != MessageType.KVS:
                    _restore(tx, record[0], record[1:])
                    tx.forget()
            yield
    except (WireError, StateError) as error:
        raise FsmError(f"snapshot cannot be restored: {error}") from error
    return tables, chunker


def _records(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """First the header, alone; then the records, each a type byte and a value, in groups.

    A type byte is a number in msgpack too, so the whole is a row of values whose ends one pass finds.
    """
    rest, header, more = b"", True, iter(pieces)
    while True:
        # As much again as was not enough: looking through it anew stays cheap, however long it is.
        wanted = 2 * len(rest)
        gathered = [rest]
        size = len(rest)
        while (piece := next(more, None)) is not None:
            gathered.append(piece)
            size += len(piece)
            if size > wanted:
                break
        data = b"".join(gathered)
        unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
        unpacker.feed(data)
        skip, tell = unpacker.skip, unpacker.tell
        start = 0
        records: list[bytes] = []
        try:
            while start < len(data):
                if not header:
                    if data[start] > _TYPE_MAX:
                        raise FsmError(f"Unrecognized msg type {data[start]}")
                    skip()
                skip()
                end = tell()
                records.append(data[start:end])
                start = end
                if header or len(records) == STEP_RECORDS:
                    header = False
                    yield records
                    records = []
        except msgpack.OutOfData:
            pass
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise WireError(f"malformed msgpack: {str(error)[:160]}") from error
        if records:
            yield records
        rest = data[start:]
        if piece is None:
            if rest or header:
                raise FsmError("snapshot is truncated")
            return
        if len(rest) > _VALUE_BYTES_MAX:
            raise FsmError(f"snapshot has a record of more than {_VALUE_BYTES_MAX} bytes")


_TYPE_MAX = 0x7F
"""Beyond, a type byte is not a msgpack number of one byte; Consul's types end at 30."""
_decode_entry = msgspec.msgpack.Decoder(DirEntry).decode


def _keys(tables: Tables, records: list[bytes]) -> None:
    """Rows of the key-value store, as `kv.insert` would put them into a table of their own."""
    kvs, index = tables.kvs, tables.index.get(KVS, -1)
    new: list[str] = []
    for record in records:
        body = record[1:]
        try:
            row = _decode_entry(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            row = decode(body, DirEntry)
        key = row.key
        old = kvs.get(key)
        if old is None:
            new.append(key)
        elif old.session:
            tables.session_keys[old.session].pop(key)
        if row.session:
            tables.session_keys.setdefault(row.session, {})[key] = None
        kvs[key] = row
        index = max(index, row.modify_index)
    if records:
        tables.index[KVS] = index
        tables.kv_keys.extend(new)


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
