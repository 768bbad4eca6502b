"""Rows whose meaning this server does not need yet: kept whole, so that nothing is lost.

Config entries, intentions, prepared queries and the ACL tables are written by real peers' commands
and by their snapshots. They are kept as decoded maps (`state/rows`), keyed as Consul keys them,
with the create and modify index that Consul would give them, and written back into snapshots in
Consul's form. From the config entries of gateways the table of their services is derived (`gateways`).
"""

from __future__ import annotations

from typing import Any

from proconsul.domain.base import decode
from proconsul.domain.messages import MessageType
from proconsul.domain.prepared_query import PreparedQuery
from proconsul.domain.query_template import CompiledTemplate, TemplateError, UnsupportedTemplate
from proconsul.domain.validate import is_uuid
from proconsul.state import acl, config_graph, gateways
from proconsul.state.errors import StateError
from proconsul.state.rows import (
    INTENTIONS,
    KINDS,
    QUERIES,
    Kind,
    Row,
    as_map,
    delete,
    key_named,
    key_of,
    put,
    put_as_is,
)
from proconsul.state.tables import CONFIG_ENTRIES, Transaction
from proconsul.util.errors import WireError
from proconsul.wire import msgpack

_ACL_COMMANDS = frozenset(
    {
        MessageType.ACL, MessageType.ACL_BOOTSTRAP,
        MessageType.ACL_TOKEN_SET, MessageType.ACL_TOKEN_DELETE,
        MessageType.ACL_POLICY_SET, MessageType.ACL_POLICY_DELETE,
        MessageType.ACL_ROLE_SET, MessageType.ACL_ROLE_DELETE,
        MessageType.ACL_BINDING_RULE_SET, MessageType.ACL_BINDING_RULE_DELETE,
        MessageType.ACL_AUTH_METHOD_SET, MessageType.ACL_AUTH_METHOD_DELETE,
    }
)  # fmt: skip
COMMANDS = _ACL_COMMANDS | {
    MessageType.PREPARED_QUERY, MessageType.INTENTION, MessageType.CONFIG_ENTRY,
}  # fmt: skip
RECORDS = frozenset({*KINDS, MessageType.ACL, MessageType.ACL_BOOTSTRAP, MessageType.CONFIG_ENTRY})
"""Snapshot records that end up here."""


def apply(tx: Transaction, type_: MessageType, body: bytes) -> Any:
    """Apply one of `COMMANDS`."""
    if type_ is MessageType.CONFIG_ENTRY:
        return _apply_config_entry(tx, body)
    request = as_map(msgpack.unpack(body))
    if type_ is MessageType.PREPARED_QUERY:
        return _apply_single(tx, QUERIES, b"Query", request)
    if type_ is MessageType.INTENTION:
        return _apply_single(tx, INTENTIONS, b"Intention", request)
    return acl.apply(tx, type_, request)


def apply_intention(tx: Transaction, body: bytes) -> None:
    """Apply an operation on an intention that is part of a transaction."""
    _apply_single(tx, INTENTIONS, b"Intention", as_map(msgpack.unpack(body)))


def _apply_single(tx: Transaction, kind: Kind, field: bytes, request: Row) -> None:
    row = as_map(request.get(field) or {})
    match request.get(b"Op"):
        case b"create" | b"update" if kind is QUERIES:
            _set_query(tx, row)
        case b"create" | b"update":
            _set_intention(tx, row)
        case b"delete":
            delete(tx, kind, msgpack.as_text(row.get(b"ID")))
        case other:
            noun = "PreparedQuery" if kind is QUERIES else "Intention"
            raise StateError(f"Invalid {noun} operation '{msgpack.as_text(other)}'")


def _set_query(tx: Transaction, row: Row) -> None:
    query_id, name = msgpack.as_text(row.get(b"ID")), msgpack.as_text(row.get(b"Name"))
    if not query_id:
        raise StateError("Missing Query ID")
    rows = acl.rows(tx, QUERIES)
    template = as_map(row.get(b"Template") or {})
    own = key_of(QUERIES, query_id)
    if key_named(tx.t, QUERIES, name) not in (None, own):
        raise StateError(f"name '{name}' aliases an existing query name")
    catch_all = not name and bool(template.get(b"Type"))
    if catch_all and any(_is_catch_all(other) for key, other in rows.items() if key != own):
        raise StateError("a query template with an empty name already exists")
    if is_uuid(name) and name.lower() in rows:
        raise StateError(f"name '{name}' aliases an existing query ID")
    session = msgpack.as_text(row.get(b"Session"))
    if session and session not in tx.t.sessions:
        raise StateError(f'invalid session "{session}"')
    if template.get(b"Type"):
        _check_template(row)
    put(tx, QUERIES, row)


def _check_template(row: Row) -> None:
    """Refuses what Consul's servers refuse; what only we cannot render is stored all the same."""
    query = decode(msgpack.pack(row), PreparedQuery)
    try:
        CompiledTemplate(query).render(query.name)
    except TemplateError as error:
        raise StateError(f"failed compiling template: {error}") from error
    except UnsupportedTemplate:
        return


def _is_catch_all(row: Row) -> bool:
    return not row.get(b"Name") and bool(as_map(row.get(b"Template") or {}).get(b"Type"))


def _set_intention(tx: Transaction, row: Row) -> None:
    intention_id = msgpack.as_text(row.get(b"ID"))
    if not intention_id:
        raise StateError("Missing Intention ID")
    rows = acl.rows(tx, INTENTIONS)
    own = key_of(INTENTIONS, intention_id)
    existing = rows.get(own)
    row = {**row, b"Precedence": _precedence(row)}
    if existing is not None:
        row[b"CreatedAt"] = existing.get(b"CreatedAt")
    names = [msgpack.as_text(row.get(field)) for field in INTENTIONS.name_fields]
    other = key_named(tx.t, INTENTIONS, *names)
    if other not in (None, own):
        raise StateError(f"duplicate intention found: {_described(rows[other])}")
    if row.get(b"Meta") is None:
        row[b"Meta"] = {}
    put(tx, INTENTIONS, row)


def _precedence(row: Row) -> int:
    """The more exact the destination, then the source, the higher (`UpdatePrecedence`)."""

    def exact(namespace: bytes, name: bytes) -> int:
        if row.get(namespace) == b"*":
            return 0
        return 1 if row.get(name) == b"*" else 2

    highest = (3, 6, 9)[exact(b"DestinationNS", b"DestinationName")]
    return highest - (2 - exact(b"SourceNS", b"SourceName"))


def _described(row: Row) -> str:
    def part(name: bytes) -> str:
        return msgpack.as_text(row.get(name))

    return (
        f"{part(b'Action').upper()} {part(b'SourceNS')}/{part(b'SourceName')} => "
        f"{part(b'DestinationNS')}/{part(b'DestinationName')} "
        f"(ID: {part(b'ID')}, Precedence: {row.get(b'Precedence', 0)})"
    )


def restore(tx: Transaction, type_: MessageType, body: bytes) -> None:
    """Put a snapshot's row as it is."""
    if type_ is MessageType.CONFIG_ENTRY:
        _, row = _split_config_entry(body)
        if row.get(b"Kind") in gateways.KINDS:
            gateways.entry_written(tx, None, row, msgpack.as_uint(row.get(b"ModifyIndex")))
        tx.put(tx.t.config_entries, _entry_key(row), row)
        return
    row = as_map(msgpack.unpack(body))
    if type_ is MessageType.ACL_BOOTSTRAP:  # of before Consul 1.4
        tx.bump(acl.BOOTSTRAP, msgpack.as_uint(row.get(b"ModifyIndex")))
        return
    if type_ is MessageType.ACL:
        type_, row = MessageType.ACL_TOKEN_SET, acl.converted(row)
    key = key_of(KINDS[type_], msgpack.as_text(row.get(KINDS[type_].id_field)))
    if not key:
        raise WireError(f"record of type {int(type_)} without an ID")
    put_as_is(tx, KINDS[type_], key, row)


# --- config entries: a raw that holds the kind and then the request


def _split_config_entry(body: bytes) -> tuple[Row, Row]:
    inner = msgpack.as_bytes(msgpack.unpack(body))
    _, offset = msgpack.unpack_first(inner)
    request = as_map(msgpack.unpack(inner[offset:]))
    entry = request.get(b"Entry")
    if isinstance(entry, bytes):  # proxy-defaults marshals itself
        entry = msgpack.unpack(entry)
    return request, as_map(entry)


def encode_config_entry(row: Row) -> bytes:
    """A snapshot record's body, as Consul writes it."""
    kind = msgpack.as_text(row.get(b"Kind"))
    entry: Any = msgpack.pack(row) if kind == "proxy-defaults" else row
    request = {"Datacenter": "", "Entry": entry, "Op": "", "Token": ""}
    return msgpack.pack(msgpack.pack(kind) + msgpack.pack(request))


def _entry_key(row: Row) -> tuple[str, str]:
    return msgpack.as_text(row.get(b"Kind")), msgpack.as_text(row.get(b"Name"))


def _apply_config_entry(tx: Transaction, body: bytes) -> bool | None:
    request, row = _split_config_entry(body)
    key = _entry_key(row)
    existing = tx.t.config_entries.get(key)
    op = request.get(b"Op")
    if op == b"delete":
        if existing is not None:
            config_graph.check(tx, key, None)
            if row.get(b"Kind") in gateways.KINDS:
                gateways.entry_deleted(tx, key[1])
            tx.remove(tx.t.config_entries, key)
            tx.bump(CONFIG_ENTRIES)
            tx.touch(CONFIG_ENTRIES)
        return None
    if op == b"upsert-cas":
        found = existing.get(b"ModifyIndex", 0) if existing else 0
        if msgpack.as_uint(row.get(b"ModifyIndex")) != found:
            return False
    elif op != b"upsert":
        raise StateError(f"invalid config entry operation type: {msgpack.as_text(op)}")
    config_graph.check(tx, key, row)
    if not key[1]:
        raise StateError("failed inserting config entry: object missing primary index")
    if row.get(b"Kind") in gateways.KINDS:
        gateways.entry_written(tx, existing, row, tx.index)
    created = existing.get(b"CreateIndex", 0) if existing else tx.index
    tx.put(tx.t.config_entries, key, {**row, b"CreateIndex": created, b"ModifyIndex": tx.index})
    tx.bump(CONFIG_ENTRIES)
    tx.touch(CONFIG_ENTRIES)
    return True
