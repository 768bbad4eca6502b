"""Rows whose meaning this server does not need yet: kept whole, so that nothing is lost.

Config entries, intentions, prepared queries and the ACL tables are written by real peers' commands
and by their snapshots. They are kept as decoded maps (text as bytes, exactly as received), keyed
as Consul keys them, with the create and modify index that Consul would give them, and written back
into snapshots in Consul's form. What is not done: no query serves them, references between ACL
rows are not resolved, nothing is derived from config entries (gateway service lists).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from proconsul.domain.messages import MessageType
from proconsul.state.errors import FsmError, StateError
from proconsul.state.tables import CONFIG_ENTRIES, Transaction
from proconsul.util.errors import WireError
from proconsul.wire import msgpack

Row = dict[bytes, Any]


class _Kind(NamedTuple):
    record: MessageType
    """The snapshot record's type, also the key of the table."""
    list_field: bytes
    """Where a batch command carries its rows, or the IDs to delete."""
    id_field: bytes
    table: str
    """Name in the index table."""


TOKENS = _Kind(MessageType.ACL_TOKEN_SET, b"Tokens", b"AccessorID", "acl-tokens")
POLICIES = _Kind(MessageType.ACL_POLICY_SET, b"Policies", b"ID", "acl-policies")
ROLES = _Kind(MessageType.ACL_ROLE_SET, b"Roles", b"ID", "acl-roles")
RULES = _Kind(MessageType.ACL_BINDING_RULE_SET, b"BindingRules", b"ID", "acl-binding-rules")
METHODS = _Kind(MessageType.ACL_AUTH_METHOD_SET, b"AuthMethods", b"Name", "acl-auth-methods")
QUERIES = _Kind(MessageType.PREPARED_QUERY, b"Query", b"ID", "prepared-queries")
INTENTIONS = _Kind(MessageType.INTENTION, b"Intention", b"ID", "connect-intentions")

_BATCH_SETS = {
    MessageType.ACL_TOKEN_SET: TOKENS,
    MessageType.ACL_POLICY_SET: POLICIES,
    MessageType.ACL_ROLE_SET: ROLES,
    MessageType.ACL_BINDING_RULE_SET: RULES,
    MessageType.ACL_AUTH_METHOD_SET: METHODS,
}
_BATCH_DELETES = {
    MessageType.ACL_TOKEN_DELETE: (TOKENS, b"TokenIDs"),
    MessageType.ACL_POLICY_DELETE: (POLICIES, b"PolicyIDs"),
    MessageType.ACL_ROLE_DELETE: (ROLES, b"RoleIDs"),
    MessageType.ACL_BINDING_RULE_DELETE: (RULES, b"BindingRuleIDs"),
    MessageType.ACL_AUTH_METHOD_DELETE: (METHODS, b"AuthMethodNames"),
}
_SINGLES = {MessageType.PREPARED_QUERY: QUERIES, MessageType.INTENTION: INTENTIONS}

RECORDS = {kind.record: kind for kind in (*_BATCH_SETS.values(), *_SINGLES.values())}
"""Snapshot records that end up here, besides config entries."""

COMMANDS = frozenset(
    {
        *_BATCH_SETS, *_BATCH_DELETES, *_SINGLES,
        MessageType.ACL, MessageType.ACL_BOOTSTRAP, MessageType.CONFIG_ENTRY,
    }
)  # fmt: skip


def apply(tx: Transaction, type_: MessageType, body: bytes) -> Any:
    """Apply one of `COMMANDS`."""
    if type_ is MessageType.CONFIG_ENTRY:
        return _apply_config_entry(tx, body)
    request = _map(msgpack.unpack(body))
    if type_ in _BATCH_SETS:
        kind = _BATCH_SETS[type_]
        for row in _list(request.get(kind.list_field)):
            _set(tx, kind, _map(row), cas=bool(request.get(b"CAS")))
        return None
    if type_ in _BATCH_DELETES:
        kind, field = _BATCH_DELETES[type_]
        for row_id in _list(request.get(field)):
            _delete(tx, kind, msgpack.as_text(row_id))
        return None
    if type_ in _SINGLES:
        return _apply_single(tx, _SINGLES[type_], request)
    return _apply_acl(tx, type_, request)


def _apply_single(tx: Transaction, kind: _Kind, request: Row) -> None:
    row = _map(request.get(kind.list_field) or {})
    match request.get(b"Op"):
        case b"create" | b"update":
            _set(tx, kind, row, cas=False)
        case b"delete":
            _delete(tx, kind, msgpack.as_text(row.get(kind.id_field)))
        case other:
            raise StateError(f"Invalid {kind.table} operation '{msgpack.as_text(other)}'")


def _apply_acl(tx: Transaction, type_: MessageType, request: Row) -> bool:
    if type_ is MessageType.ACL_BOOTSTRAP:
        reset = msgpack.as_uint(request.get(b"ResetIndex"))
        if tx.t.index.get("acl-token-bootstrap", 0) != reset:
            raise StateError("ACL bootstrap no longer allowed")
        _set(tx, TOKENS, _map(request.get(b"Token")), cas=False)
        tx.bump("acl-token-bootstrap")
        return True
    # Tokens of before Consul 1.4 have another shape, which only Consul can convert.
    raise FsmError("legacy ACL command (Consul before 1.4) cannot be applied")


def _set(tx: Transaction, kind: _Kind, row: Row, *, cas: bool) -> None:
    table = tx.t.opaque.setdefault(kind.record, {})
    key = msgpack.as_text(row.get(kind.id_field))
    existing = table.get(key)
    if cas:
        found = existing.get(b"ModifyIndex", 0) if existing else 0
        if msgpack.as_uint(row.get(b"ModifyIndex")) != found:
            return
    if kind is INTENTIONS and row.get(b"Meta") is None:
        row = {**row, b"Meta": {}}  # as Consul normalizes it
    created = existing.get(b"CreateIndex", 0) if existing else tx.index
    tx.put(table, key, {**row, b"CreateIndex": created, b"ModifyIndex": tx.index})
    tx.bump(kind.table)
    tx.touch(kind.table)


def _delete(tx: Transaction, kind: _Kind, key: str) -> None:
    table = tx.t.opaque.get(kind.record, {})
    if key in table:
        tx.remove(table, key)
        tx.bump(kind.table)
        tx.touch(kind.table)


def restore(tx: Transaction, type_: MessageType, body: bytes) -> None:
    """Put a snapshot's row as it is."""
    if type_ is MessageType.CONFIG_ENTRY:
        _, row = _split_config_entry(body)
        tx.put(tx.t.config_entries, _entry_key(row), row)
        return
    kind = RECORDS[type_]
    row = _map(msgpack.unpack(body))
    tx.put(tx.t.opaque.setdefault(type_, {}), msgpack.as_text(row.get(kind.id_field)), row)


# --- config entries: a raw that holds the kind and then the request


def _split_config_entry(body: bytes) -> tuple[Row, Row]:
    inner = msgpack.as_bytes(msgpack.unpack(body))
    _, offset = msgpack.unpack_first(inner)
    request = _map(msgpack.unpack(inner[offset:]))
    entry = request.get(b"Entry")
    if isinstance(entry, bytes):  # proxy-defaults marshals itself
        entry = msgpack.unpack(entry)
    return request, _map(entry)


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
    created = existing.get(b"CreateIndex", 0) if existing else tx.index
    tx.put(tx.t.config_entries, key, {**row, b"CreateIndex": created, b"ModifyIndex": tx.index})
    tx.bump(CONFIG_ENTRIES)
    tx.touch(CONFIG_ENTRIES)
    return True


def _map(value: object) -> Row:
    if not isinstance(value, dict):
        raise WireError("expected a map")
    return value


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise WireError("expected a list")
    return value
