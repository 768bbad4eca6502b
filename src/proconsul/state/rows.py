"""Tables of rows that are kept as decoded maps, and how one is put and removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from proconsul.domain.messages import MessageType
from proconsul.state.tables import Tables, Transaction
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
    name_fields: tuple[bytes, ...] = ()
    """No two rows have the same in all of these, whatever the case; with one empty it is no name."""


TOKENS = Kind(MessageType.ACL_TOKEN_SET, b"SecretID", "acl-tokens", (b"AccessorID",))
POLICIES = Kind(MessageType.ACL_POLICY_SET, b"ID", "acl-policies", (b"Name",))
ROLES = Kind(MessageType.ACL_ROLE_SET, b"ID", "acl-roles", (b"Name",))
RULES = Kind(MessageType.ACL_BINDING_RULE_SET, b"ID", "acl-binding-rules")
METHODS = Kind(MessageType.ACL_AUTH_METHOD_SET, b"Name", "acl-auth-methods")
QUERIES = Kind(MessageType.PREPARED_QUERY, b"ID", "prepared-queries", (b"Name",))
INTENTIONS = Kind(
    MessageType.INTENTION, b"ID", "connect-intentions",
    (b"SourceNS", b"SourceName", b"DestinationNS", b"DestinationName"),
)  # fmt: skip

KINDS = {
    kind.record: kind for kind in (TOKENS, POLICIES, ROLES, RULES, METHODS, QUERIES, INTENTIONS)
}
"""By the type of their snapshot records."""


def key_of(kind: Kind, row_id: str) -> str:
    """The key of a row. Consul finds queries and intentions by their UUID in any case of letters."""
    return row_id.lower() if kind in (QUERIES, INTENTIONS) else row_id


def put(tx: Transaction, kind: Kind, row: Row) -> None:
    """Insert or replace, with the indexes that Consul would give the row."""
    key = key_of(kind, as_text(row.get(kind.id_field)))
    existing = tx.t.opaque.get(kind.record, {}).get(key)
    created = existing.get(b"CreateIndex", 0) if existing else tx.index
    put_as_is(tx, kind, key, {**row, b"CreateIndex": created, b"ModifyIndex": tx.index})
    tx.bump(kind.table)
    tx.touch(kind.table)


def put_as_is(tx: Transaction, kind: Kind, key: str, row: Row) -> None:
    """Insert or replace a row that has its indexes."""
    table = tx.t.opaque.setdefault(kind.record, {})
    if kind.name_fields:
        _unname(tx, kind, key, table.get(key))
        if name := _name(kind, row):
            tx.put(tx.t.opaque_named.setdefault(kind.record, {}), name, key)
    tx.put(table, key, row)


def key_named(tables: Tables, kind: Kind, *name: str) -> str | None:
    """The key of the row with this name, given by its `name_fields`."""
    return tables.opaque_named.get(kind.record, {}).get(_joined(name))


def _name(kind: Kind, row: Row) -> str:
    return _joined([as_text(row.get(field)) for field in kind.name_fields])


def _joined(parts: Sequence[str]) -> str:
    """Empty if one of them is."""
    return "\0".join(parts).lower() if all(parts) else ""


def _unname(tx: Transaction, kind: Kind, key: str, row: Row | None) -> None:
    if row is None or not (name := _name(kind, row)):
        return
    named = tx.t.opaque_named.get(kind.record, {})
    if named.get(name) == key:
        tx.remove(named, name)


def delete(tx: Transaction, kind: Kind, key: str) -> None:
    """Remove the row if it is there."""
    key = key_of(kind, key)
    table = tx.t.opaque.get(kind.record, {})
    if key in table:
        if kind.name_fields:
            _unname(tx, kind, key, table[key])
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
