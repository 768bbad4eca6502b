"""The state that a server answers from: one object, read everywhere, written by the FSM alone.

Reads are grouped by subject (`store.catalog`, `store.kv`, ...); each returns an `Answer`: index,
value and watch. Everything runs on one thread, so an answer is consistent in itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from proconsul.domain.operator import AutopilotConfig, AutopilotSetConfigRequest
from proconsul.domain.txn import TxnError, TxnOp, TxnResult
from proconsul.state import txn
from proconsul.state.acl_queries import AclQueries
from proconsul.state.catalog_queries import CatalogQueries
from proconsul.state.connect import ConnectQueries
from proconsul.state.coordinates import CoordinateQueries
from proconsul.state.federation import FederationQueries
from proconsul.state.ingress import IngressQueries
from proconsul.state.kv import KvQueries
from proconsul.state.opaque_queries import MeshQueries
from proconsul.state.prepared_queries import PreparedQueries
from proconsul.state.sessions import SessionQueries
from proconsul.state.tables import AUTOPILOT, Tables, Transaction
from proconsul.state.watch import Answer, Watch, WatchRegistry

T = TypeVar("T")

_ONLY = ""


class Store:
    """Tables, their queries and the callbacks that wait for changes."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._watches = WatchRegistry()
        self.on_lock_delay: Callable[[str, int], None] | None = None
        """Told of keys that lost their lock with a session, and for how many ns to wait."""
        tables, watches = self._current, self._watches
        self.catalog = CatalogQueries(tables, watches)
        self.kv = KvQueries(tables, watches)
        self.federation = FederationQueries(tables, watches)
        self.connect = ConnectQueries(tables, watches)
        self.coordinates = CoordinateQueries(tables, watches)
        self.sessions = SessionQueries(tables, watches)
        self.mesh = MeshQueries(tables, watches)
        self.ingress = IngressQueries(tables, watches, self.catalog, self.mesh)
        self.acl = AclQueries(tables, watches)
        self.queries = PreparedQueries(tables, watches)

    def _current(self) -> Tables:
        return self._tables

    @property
    def tables(self) -> Tables:
        """The rows themselves, for snapshots. Never to be written."""
        return self._tables

    def last_index(self) -> int:
        """The highest index of any table; 0 if nothing was ever written."""
        return max(self._tables.index.values(), default=0)

    @property
    def version(self) -> int:
        """Changes with every commit: what was read under the same version is still true."""
        return self._watches.version

    def autopilot(self) -> Answer[AutopilotConfig | None]:
        row = self._tables.autopilot.get(_ONLY)
        return Answer(row.modify_index if row else 1, row, Watch(self._watches, (AUTOPILOT,)))

    def write(self, index: int, change: Callable[[Transaction], T]) -> T:
        """Run one command's `change`: all of it and its wake-ups, or, if it raises, none."""
        tx = Transaction(self._tables, index)
        try:
            result = change(tx)
        except BaseException:
            tx.rollback()
            raise
        if self.on_lock_delay is not None:
            for key, delay_ns in tx.lock_delays:
                self.on_lock_delay(key, delay_ns)
        self._watches.fire(tx.touched)
        return result

    def read_transaction(self, ops: list[TxnOp]) -> tuple[list[TxnResult], list[TxnError]]:
        """Run operations on the state as it is; whatever they would write does not stay."""
        tx = Transaction(self._tables, self.last_index())
        try:
            return txn.apply(tx, ops)
        finally:
            tx.rollback()

    def replace_all(self, tables: Tables) -> None:
        """Swap in restored tables. Every watch fires; indexes may go backwards, here only."""
        self._tables = tables
        self._watches.fire_all()


def set_autopilot(tx: Transaction, request: AutopilotSetConfigRequest) -> bool | None:
    """Write the autopilot configuration; with CAS, say whether it happened."""
    existing = tx.t.autopilot.get(_ONLY)
    config = request.config
    if request.cas and (existing is None or existing.modify_index != config.modify_index):
        return False
    row = replace(
        config,
        create_index=existing.create_index if existing else tx.index,
        modify_index=tx.index,
    )
    tx.put(tx.t.autopilot, _ONLY, row)
    tx.touch(AUTOPILOT)
    return True if request.cas else None
