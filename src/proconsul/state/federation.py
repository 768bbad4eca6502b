"""WAN federation states (`agent/consul/state/federation_state.go`)."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from proconsul.domain.federation import FederationState
from proconsul.state.errors import StateError
from proconsul.state.tables import FEDERATION_STATES, Tables, Transaction
from proconsul.state.watch import Answer, Watch, WatchRegistry


def upsert(tx: Transaction, state: FederationState) -> None:
    """Write a datacenter's state. One without a primary's index was written in the primary."""
    if not state.datacenter:
        raise StateError("missing datacenter on federation state")
    existing = tx.t.federation_states.get(state.datacenter)
    row = replace(
        state,
        create_index=existing.create_index if existing else tx.index,
        modify_index=tx.index,
        primary_modify_index=state.primary_modify_index or tx.index,
    )
    insert(tx, row)
    tx.bump(FEDERATION_STATES)


def insert(tx: Transaction, row: FederationState) -> None:
    """Put a finished row; the caller sets the table's index."""
    row = replace(row, raw_updated_at=row.raw_updated_at.copy())
    tx.put(tx.t.federation_states, row.datacenter, row)
    tx.touch(FEDERATION_STATES, ("federation", row.datacenter))


def delete(tx: Transaction, datacenter: str) -> None:
    if datacenter not in tx.t.federation_states:
        return
    tx.remove(tx.t.federation_states, datacenter)
    tx.bump(FEDERATION_STATES)
    tx.touch(FEDERATION_STATES, ("federation", datacenter))


class FederationQueries:
    """Reads of federation states."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def get(self, datacenter: str) -> Answer[FederationState | None]:
        t = self._tables()
        row = t.federation_states.get(datacenter)
        watch = Watch(self._watches, (("federation", datacenter),))
        return Answer(max(t.max_index(FEDERATION_STATES), 1), row, watch)

    def all(self) -> Answer[list[FederationState]]:
        """All, by datacenter."""
        t = self._tables()
        rows = [t.federation_states[key] for key in sorted(t.federation_states)]
        watch = Watch(self._watches, (FEDERATION_STATES,))
        return Answer(max(t.max_index(FEDERATION_STATES), 1), rows, watch)
