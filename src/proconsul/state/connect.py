"""The certificate authority's state (`agent/consul/state/connect_ca.go`)."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from proconsul.domain import connect as domain
from proconsul.domain.connect import CAConfiguration, CAConsulProviderState, CARequest, CARoot
from proconsul.state.errors import MISSING_CA_ROOT_ID, StateError
from proconsul.state.tables import (
    CA_CONFIG,
    CA_PROVIDER,
    CA_PROVIDER_SERIAL,
    CA_ROOTS,
    Tables,
    Transaction,
    successor,
)
from proconsul.state.watch import Answer, Watch, WatchRegistry

_ONLY = ""


def apply(tx: Transaction, request: CARequest) -> bool | int | None:
    """One CA operation; what it answers is Consul's (did it happen, or the serial number)."""
    config, state = request.config or CAConfiguration(), request.provider_state
    match request.op:
        case domain.CA_SET_CONFIG:
            if config.modify_index:
                return check_and_set_config(tx, config.modify_index, config, tx.index)
            set_config(tx, config, tx.index)
            return None
        case domain.CA_SET_ROOTS:
            return set_roots(tx, request.index, request.roots or [])
        case domain.CA_SET_PROVIDER_STATE:
            set_provider_state(tx, state or CAConsulProviderState())
            return True
        case domain.CA_DELETE_PROVIDER_STATE:
            delete_provider_state(tx, state.id if state else "")
            return True
        case domain.CA_SET_ROOTS_AND_CONFIG:
            if not set_roots(tx, request.index, request.roots or []):
                return False
            # Consul commits the roots before it looks at the configuration, and gives the
            # latter the next index: to stay identical, so do we.
            return check_and_set_config(tx, config.modify_index, config, tx.index + 1)
        case domain.CA_INCREMENT_PROVIDER_SERIAL:
            return increment_serial(tx)
        case _:
            raise StateError(f"Invalid CA operation '{request.op}'")


def set_config(tx: Transaction, config: CAConfiguration, index: int) -> None:
    """Write the configuration; a missing cluster ID is inherited."""
    existing = tx.t.ca_config.get(_ONLY)
    row = replace(
        config,
        cluster_id=config.cluster_id or (existing.cluster_id if existing else ""),
        create_index=existing.create_index if existing else index,
        modify_index=index,
    )
    tx.put(tx.t.ca_config, _ONLY, row)
    tx.touch(CA_CONFIG)


def check_and_set_config(
    tx: Transaction, expected: int, config: CAConfiguration, index: int
) -> bool:
    existing = tx.t.ca_config.get(_ONLY)
    if expected != (existing.modify_index if existing else 0):
        return False
    set_config(tx, config, index)
    return True


def restore_config(tx: Transaction, row: CAConfiguration) -> None:
    if row.provider:  # Consul 1.3 could store an empty one
        tx.put(tx.t.ca_config, _ONLY, row)


def set_roots(tx: Transaction, expected: int, roots: list[CARoot]) -> bool:
    """Replace all roots if the table's index is `expected`. Exactly one must be active."""
    if sum(root.active for root in roots) != 1:
        raise StateError("there must be exactly one active CA")
    if tx.t.max_index(CA_ROOTS) != expected:
        return False
    old = dict(tx.t.ca_roots)
    for root in roots:
        if not root.id:
            raise StateError(MISSING_CA_ROOT_ID)
    for key in old:
        tx.remove(tx.t.ca_roots, key)
    for root in roots:
        existing = old.get(root.id)
        insert_root(
            tx,
            replace(
                root,
                create_index=existing.create_index if existing else tx.index,
                modify_index=tx.index,
            ),
        )
    tx.bump(CA_ROOTS)
    return True


def insert_root(tx: Transaction, row: CARoot) -> None:
    """Put a finished row; the caller sets the table's index."""
    row = replace(
        row,
        raw_not_before=row.raw_not_before.copy(),
        raw_not_after=row.raw_not_after.copy(),
        raw_rotated_out_at=row.raw_rotated_out_at.copy(),
    )
    tx.put(tx.t.ca_roots, row.id, row)
    tx.touch(CA_ROOTS)


def set_provider_state(tx: Transaction, state: CAConsulProviderState) -> None:
    existing = tx.t.ca_provider_states.get(state.id)
    row = replace(
        state,
        create_index=existing.create_index if existing else tx.index,
        modify_index=tx.index,
    )
    tx.put(tx.t.ca_provider_states, row.id, row)
    tx.bump(CA_PROVIDER)


def delete_provider_state(tx: Transaction, state_id: str) -> None:
    if state_id in tx.t.ca_provider_states:
        tx.remove(tx.t.ca_provider_states, state_id)


def increment_serial(tx: Transaction) -> int:
    """The next serial number of the built-in provider."""
    last = tx.t.index.get(CA_PROVIDER_SERIAL)
    following = successor(tx.t.max_index(CA_PROVIDER) if last is None else last)
    tx.bump(CA_PROVIDER_SERIAL, following)
    return following


class ConnectQueries:
    """Reads of the CA's state."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def roots(self) -> Answer[list[CARoot]]:
        """All roots, by ID."""
        t = self._tables()
        rows = [t.ca_roots[key] for key in sorted(t.ca_roots)]
        return Answer(max(t.max_index(CA_ROOTS), 1), rows, Watch(self._watches, (CA_ROOTS,)))

    @property
    def roots_index(self) -> int:
        """What a set of roots must expect: 0 before the first."""
        return self._tables().max_index(CA_ROOTS)

    def active_root(self) -> Answer[CARoot | None]:
        index, rows, watch = self.roots()
        return Answer(index, next((row for row in rows if row.active), None), watch)

    def config(self) -> Answer[CAConfiguration | None]:
        row = self._tables().ca_config.get(_ONLY)
        return Answer(row.modify_index if row else 1, row, Watch(self._watches, (CA_CONFIG,)))

    def roots_and_config(self) -> Answer[tuple[list[CARoot], CAConfiguration | None]]:
        """Both, with a watch on both: what a snapshot of a proxy needs for the trust domain."""
        roots, config = self.roots(), self.config()
        return Answer(
            max(roots.index, config.index),
            (roots.value, config.value),
            roots.watch.merged(config.watch),
        )

    def provider_state(self, state_id: str) -> CAConsulProviderState | None:
        """A secret of the servers: never answer a request with it."""
        return self._tables().ca_provider_states.get(state_id)

    def signing_state(self, root: CARoot) -> CAConsulProviderState | None:
        """The built-in provider's state that holds this root's key. A secret, as above."""
        wanted = root.root_cert.strip()
        states = self._tables().ca_provider_states.values()
        return next((s for s in states if s.root_cert.strip() == wanted and s.private_key), None)
