"""Tables of rows that are kept as decoded maps, and how one is put and removed."""

from __future__ import annotations

from typing import Any, NamedTuple

from proconsul.domain.messages import MessageType
from proconsul.state.tables import Transaction
from proconsul.util.errors import WireError
from proconsul.wire.msgpack import as_text

Row = dict[bytes, Any]


class Kind(NamedTuple):
    """One table."""

    record: MessageType
    """The snapshot record's type, also the key of the table."""
    id_field: bytes
    table: str
    """Name in the index table."""


TOKENS = Kind(MessageType.ACL_TOKEN_SET, b"SecretID", "acl-tokens")
POLICIES = Kind(MessageType.ACL_POLICY_SET, b"ID", "acl-policies")
ROLES = Kind(MessageType.ACL_ROLE_SET, b"ID", "acl-roles")
RULES = Kind(MessageType.ACL_BINDING_RULE_SET, b"ID", "acl-binding-rules")
METHODS = Kind(MessageType.ACL_AUTH_METHOD_SET, b"Name", "acl-auth-methods")
QUERIES = Kind(MessageType.PREPARED_QUERY, b"ID", "prepared-queries")
INTENTIONS = Kind(MessageType.INTENTION, b"ID", "connect-intentions")

KINDS = {
    kind.record: kind for kind in (TOKENS, POLICIES, ROLES, RULES, METHODS, QUERIES, INTENTIONS)
}
"""By the type of their snapshot records."""


def key_of(kind: Kind, row_id: str) -> str:
    """The key of a row. Consul finds queries and intentions by their UUID in any case of letters."""
    return row_id.lower() if kind in (QUERIES, INTENTIONS) else row_id


def put(tx: Transaction, kind: Kind, row: Row) -> None:
    """Insert or replace, with the indexes that Consul would give the row."""
    table = tx.t.opaque.setdefault(kind.record, {})
    key = key_of(kind, as_text(row.get(kind.id_field)))
    existing = table.get(key)
    created = existing.get(b"CreateIndex", 0) if existing else tx.index
    tx.put(table, key, {**row, b"CreateIndex": created, b"ModifyIndex": tx.index})
    tx.bump(kind.table)
    tx.touch(kind.table)


def delete(tx: Transaction, kind: Kind, key: str) -> None:
    """Remove the row if it is there."""
    key = key_of(kind, key)
    table = tx.t.opaque.get(kind.record, {})
    if key in table:
        tx.remove(table, key)
        tx.bump(kind.table)
        tx.touch(kind.table)


def as_map(value: object) -> Row:
    """A map. Raises `WireError`."""
    if not isinstance(value, dict):
        raise WireError("expected a map")
    return value


def as_list(value: object) -> list[Any]:
    """A list, empty for nil. Raises `WireError`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise WireError("expected a list")
    return value
