"""Sessions and the locks they hold (`agent/consul/state/session.go`).

The lock delay after an invalidation is each server's own memory, not replicated state: it is told
to `Store.on_lock_delay`, and the leader's KV endpoint asks for it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from proconsul.domain.catalog import CRITICAL
from proconsul.domain.session import BEHAVIOR_DELETE, BEHAVIOR_RELEASE, Session
from proconsul.state import kv
from proconsul.state.errors import MISSING_NODE, MISSING_SESSION_ID, StateError
from proconsul.state.rows import QUERIES
from proconsul.state.rows import delete as delete_row
from proconsul.state.tables import SESSIONS, Tables, Transaction
from proconsul.state.watch import Answer, Watch, WatchRegistry


def create(tx: Transaction, session: Session) -> str:
    """Insert a session and return its ID. Raises `StateError` if a check is not healthy."""
    if not session.id:
        raise StateError(MISSING_SESSION_ID)
    behavior = session.behavior or BEHAVIOR_RELEASE
    if behavior not in {BEHAVIOR_RELEASE, BEHAVIOR_DELETE}:
        raise StateError(f"Invalid session behavior: {behavior}")
    node = session.node.lower()
    if node not in tx.t.nodes:
        raise StateError(MISSING_NODE)
    checks = tx.t.checks.get(node, {})
    for check_id in session.check_ids():
        check = checks.get(check_id.lower())
        if check is None:
            raise StateError(f"Missing check '{check_id}' registration")
        if check.status == CRITICAL:
            raise StateError(f"Check '{check_id}' is in {check.status} state")
    insert(tx, replace(session, behavior=behavior, create_index=tx.index, modify_index=tx.index))
    tx.bump(SESSIONS)
    return session.id


def insert(tx: Transaction, session: Session) -> None:
    """Put a finished row; the caller sets the table's index."""
    tx.put(tx.t.sessions, session.id, session)
    tx.touch(SESSIONS, ("session", session.id), ("node-sessions", session.node.lower()))


def destroy(tx: Transaction, session_id: str) -> None:
    """Remove a session and release or delete the keys that it locked."""
    session = tx.t.sessions.get(session_id)
    if session is None:
        return
    tx.remove(tx.t.sessions, session_id)
    tx.bump(SESSIONS)
    tx.touch(SESSIONS, ("session", session_id), ("node-sessions", session.node.lower()))
    for key in sorted(tx.t.session_keys.get(session_id, ())):
        if session.behavior == BEHAVIOR_DELETE:
            kv.delete(tx, key)
        else:
            kv.set_entry(tx, replace(tx.t.kvs[key], session=""), update_session=True)
        if session.lock_delay_ns > 0:
            tx.lock_delays.append((key, session.lock_delay_ns))
    bound = session.id.encode()
    for key, query in list(tx.t.opaque.get(QUERIES.record, {}).items()):
        if query.get(b"Session") == bound:
            delete_row(tx, QUERIES, key)


def delete_alone(tx: Transaction, session_id: str) -> None:
    """Remove a session and leave the keys that it locked as they are: what transactions do."""
    session = tx.t.sessions.get(session_id)
    if session is None:
        raise StateError("failed to delete session: failed deleting session: not found")
    tx.remove(tx.t.sessions, session_id)
    tx.bump(SESSIONS)
    tx.touch(SESSIONS, ("session", session_id), ("node-sessions", session.node.lower()))


def delete_of_node(tx: Transaction, node: str) -> None:
    """Remove the sessions of a node (lower case)."""
    for session in sorted(_of_node(tx.t, node), key=lambda row: row.id):
        destroy(tx, session.id)


def delete_of_check(tx: Transaction, node: str, check_id: str) -> None:
    """Remove the sessions of a node (lower case) that depend on a check."""
    wanted = check_id.lower()
    for session in sorted(_of_node(tx.t, node), key=lambda row: row.id):
        if any(wanted == name.lower() for name in session.check_ids()):
            destroy(tx, session.id)


def _of_node(t: Tables, node: str) -> list[Session]:
    return [session for session in t.sessions.values() if session.node.lower() == node]


class SessionQueries:
    """Reads of sessions."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def get(self, session_id: str) -> Answer[Session | None]:
        t = self._tables()
        watch = Watch(self._watches, (("session", session_id),))
        return Answer(max(t.max_index(SESSIONS), 1), t.sessions.get(session_id), watch)

    def all(self) -> Answer[list[Session]]:
        """All, by ID."""
        t = self._tables()
        rows = [t.sessions[key] for key in sorted(t.sessions)]
        return Answer(max(t.max_index(SESSIONS), 1), rows, Watch(self._watches, (SESSIONS,)))

    def of_node(self, node: str) -> Answer[list[Session]]:
        """Those of one node, by ID."""
        t = self._tables()
        rows = sorted(_of_node(t, node.lower()), key=lambda row: row.id)
        watch = Watch(self._watches, (("node-sessions", node.lower()),))
        return Answer(max(t.max_index(SESSIONS), 1), rows, watch)
