"""Raft's state machine: the only writer of the store (`agent/consul/fsm`).

A log entry is a type byte and a request in msgpack. Results are Consul's; a command that the
state refuses yields a `StateError` *as its result*, since refusing is deterministic too. What
cannot be applied at all (unknown type, undecodable) raises `FsmError`: the server must stop
rather than diverge. Only types with `IGNORE_UNKNOWN_TYPE_FLAG` may be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from proconsul.domain import federation as federation_domain
from proconsul.domain import kv as kv_domain
from proconsul.domain import session as session_domain
from proconsul.domain.base import decode
from proconsul.domain.catalog import DeregisterRequest, RegisterRequest
from proconsul.domain.connect import CA_LEAF_INCREMENT_INDEX, CALeafRequest, CARequest
from proconsul.domain.coordinate import NodeCoordinate
from proconsul.domain.federation import FederationState, FederationStateRequest
from proconsul.domain.kv import KVSRequest, TombstoneRequest
from proconsul.domain.messages import IGNORE_UNKNOWN_TYPE_FLAG, MessageType
from proconsul.domain.operator import AutopilotSetConfigRequest
from proconsul.domain.session import SessionRequest
from proconsul.domain.txn import TxnRequest, TxnResponse
from proconsul.state import (
    catalog,
    connect,
    coordinates,
    federation,
    kv,
    opaque,
    restore,
    sessions,
    snapshot,
    txn,
)
from proconsul.state.chunking import Chunker
from proconsul.state.errors import FsmError, StateError
from proconsul.state.store import Store, set_autopilot
from proconsul.state.tables import Transaction
from proconsul.util.errors import WireError

Handler = Callable[[Transaction, bytes], Any]


class _TxnFailedError(Exception):
    """Carries a transaction's errors out of the write, which thereby is undone."""

    def __init__(self, response: TxnResponse) -> None:
        super().__init__("transaction failed")
        self.response = response


class Fsm:
    """Applies commands to a `Store`."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store if store is not None else Store()
        self._chunker = Chunker()

    def apply(self, index: int, data: bytes, extensions: bytes = b"", term: int = 0) -> object:
        """Apply one committed entry and return its result, a `StateError` if it was refused.

        `extensions` and `term` are the log entry's, for commands that a peer sent in chunks; all
        chunks but the last return None. Raises `FsmError` if the entry cannot be applied.
        """
        if extensions:
            whole = self._chunker.add(data, extensions, term)
            if whole is None:
                return None
            data = whole
        if not data:
            raise FsmError(f"log entry {index} is empty")
        number = data[0] & ~IGNORE_UNKNOWN_TYPE_FLAG
        handler = _HANDLERS.get(number)
        if handler is None:
            if data[0] & IGNORE_UNKNOWN_TYPE_FLAG:
                return None
            raise FsmError(f"log entry {index} has unknown type {number}: upgrade this server")
        body = data[1:]
        try:
            return self.store.write(index, lambda tx: handler(tx, body))
        except StateError as error:
            return error
        except _TxnFailedError as failed:
            return failed.response
        except WireError as error:
            raise FsmError(f"log entry {index} of type {number}: {error}") from error

    def snapshot(self) -> Iterator[bytes]:
        """The state of this moment in pieces, encoded while iterated; later writes do not show."""
        return snapshot.dump(self.store.tables, self.store.last_index(), self._chunker)

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the whole state. Raises `FsmError` and keeps the old one if it is damaged."""
        steps = self.restore_steps(pieces)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                for _ in done.value():
                    pass
                return

    def restore_steps(
        self, pieces: Iterable[bytes]
    ) -> Generator[None, None, Callable[[], Iterator[None]]]:
        """Read a snapshot beside the state, in steps of a few milliseconds.

        The generator returns what puts it into the state's place; that in turn returns the steps
        in which the old state is freed, which may be drawn whenever there is time. Raises
        `FsmError` if the snapshot is damaged.
        """
        tables, chunker = yield from restore.load(pieces)

        def replace() -> Iterator[None]:
            old, self._chunker = self.store.tables, chunker
            self.store.replace_all(tables)
            return old.release()

        return replace


def _register(tx: Transaction, body: bytes) -> None:
    catalog.ensure_registration(tx, decode(body, RegisterRequest))


def _deregister(tx: Transaction, body: bytes) -> None:
    request = decode(body, DeregisterRequest)
    if request.service_id:
        catalog.delete_service(tx, request.node, request.service_id)
    elif request.check_id:
        catalog.delete_check(tx, request.node, request.check_id)
    else:
        catalog.delete_node(tx, request.node)


def _kvs(tx: Transaction, body: bytes) -> bool | None:
    request = decode(body, KVSRequest)
    entry = request.dir_ent
    match request.op:
        case kv_domain.KV_SET:
            kv.set_entry(tx, entry)
            return None
        case kv_domain.KV_DELETE:
            kv.delete(tx, entry.key)
            return None
        case kv_domain.KV_DELETE_CAS:
            return kv.delete_cas(tx, entry.key, entry.modify_index)
        case kv_domain.KV_DELETE_TREE:
            kv.delete_tree(tx, entry.key)
            return None
        case kv_domain.KV_CAS:
            return kv.set_cas(tx, entry) is not None
        case kv_domain.KV_LOCK:
            return kv.lock(tx, entry) is not None
        case kv_domain.KV_UNLOCK:
            return kv.unlock(tx, entry) is not None
        case _:
            raise StateError(f"Invalid KVS operation '{request.op}'")


def _session(tx: Transaction, body: bytes) -> str | None:
    request = decode(body, SessionRequest)
    match request.op:
        case session_domain.SESSION_CREATE:
            return sessions.create(tx, request.session)
        case session_domain.SESSION_DESTROY:
            sessions.destroy(tx, request.session.id)
            return None
        case _:
            raise StateError(f"Invalid Session operation '{request.op}'")


def _tombstone(tx: Transaction, body: bytes) -> None:
    request = decode(body, TombstoneRequest)
    if request.op != "reap":
        raise StateError(f"Invalid Tombstone operation '{request.op}'")
    kv.reap_tombstones(tx, request.reap_index)


def _coordinates(tx: Transaction, body: bytes) -> None:
    coordinates.batch_update(tx, decode(body, list[NodeCoordinate]))


def _txn(tx: Transaction, body: bytes) -> TxnResponse:
    request = decode(body, TxnRequest)
    results, errors = txn.apply(tx, request.ops or [])
    if errors:
        raise _TxnFailedError(TxnResponse(None, errors))
    return TxnResponse(results, None)


def _autopilot(tx: Transaction, body: bytes) -> bool | None:
    return set_autopilot(tx, decode(body, AutopilotSetConfigRequest))


def _connect_ca(tx: Transaction, body: bytes) -> bool | int | None:
    return connect.apply(tx, decode(body, CARequest))


def _ca_leaf(tx: Transaction, body: bytes) -> int:
    request = decode(body, CALeafRequest)
    if request.op != CA_LEAF_INCREMENT_INDEX:
        raise StateError(f"Invalid CA operation '{request.op}'")
    # Consul means to raise an index of the table here, and never commits it.
    return tx.index


def _federation_state(tx: Transaction, body: bytes) -> bool | None:
    request = decode(body, FederationStateRequest)
    state = request.state or FederationState()
    match request.op:
        case federation_domain.FEDERATION_UPSERT:
            federation.upsert(tx, state)
            return True
        case federation_domain.FEDERATION_DELETE:
            federation.delete(tx, state.datacenter)
            return None
        case _:
            raise StateError(f"invalid federation state operation type: {request.op}")


def _opaque(type_: MessageType) -> Handler:
    return lambda tx, body: opaque.apply(tx, type_, body)


_HANDLERS: dict[int, Handler] = {
    MessageType.REGISTER: _register,
    MessageType.DEREGISTER: _deregister,
    MessageType.KVS: _kvs,
    MessageType.SESSION: _session,
    MessageType.TOMBSTONE: _tombstone,
    MessageType.COORDINATE_BATCH_UPDATE: _coordinates,
    MessageType.TXN: _txn,
    MessageType.AUTOPILOT: _autopilot,
    MessageType.CONNECT_CA: _connect_ca,
    MessageType.CONNECT_CA_LEAF: _ca_leaf,
    MessageType.FEDERATION_STATE: _federation_state,
    **{type_: _opaque(type_) for type_ in opaque.COMMANDS},
}
