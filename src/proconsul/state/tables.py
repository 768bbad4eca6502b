"""The tables and the one writing transaction.

Rows are immutable. Node names, service and check IDs and service names are keyed by their lower
case, as Consul's memdb indexes are. Every mutation goes through `Transaction`, which can undo it
and remembers which questions it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any, TypeVar

from proconsul.domain.catalog import HealthCheck, Node, NodeService
from proconsul.domain.connect import CAConfiguration, CAConsulProviderState, CARoot
from proconsul.domain.coordinate import NodeCoordinate
from proconsul.domain.federation import FederationState
from proconsul.domain.gateways import GatewayService
from proconsul.domain.kv import DirEntry
from proconsul.domain.operator import AutopilotConfig
from proconsul.domain.session import Session
from proconsul.state.frozen import Views
from proconsul.state.sorted_keys import SortedKeys

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

NODES = "nodes"
SERVICES = "services"
CHECKS = "checks"
KVS = "kvs"
TOMBSTONES = "tombstones"
SESSIONS = "sessions"
COORDINATES = "coordinates"
FEDERATION_STATES = "federation-states"
CA_ROOTS = "connect-ca-roots"
CA_CONFIG = "connect-ca-config"
CA_PROVIDER = "connect-ca-builtin"
CA_PROVIDER_SERIAL = "connect-ca-builtin-serial"
AUTOPILOT = "autopilot-config"
CONFIG_ENTRIES = "config-entries"
GATEWAY_SERVICES = "gateway-services"
EXTINCTION = "service_last_extinction"

_RELEASE_ROWS = 4096

InstanceKey = tuple[str, str]
"""(node, service or check ID), both in lower case."""

GatewayKey = tuple[str, str, int]
"""(gateway, service, port), names in lower case."""


NodeRows = tuple[Node, dict[str, NodeService], dict[str, HealthCheck]]
"""A node with its services and checks."""


def successor(number: int) -> int:
    """One more, as in 64 bits without sign: 0 follows the last. Others' numbers may be any."""
    return (number + 1) & (1 << 64) - 1


class Tables:
    """All rows of one state. Replaced as a whole on restore."""

    __slots__ = (
        "autopilot", "ca_config", "ca_provider_states", "ca_roots", "check_services", "checks",
        "config_entries", "connect_names", "coordinates", "federation_states", "gateway_names",
        "gateway_services", "index",
        "kv_keys", "kv_views", "kvs", "node_ids", "node_keys", "node_views", "nodes", "opaque",
        "opaque_named", "service_kinds",
        "service_names", "services", "session_keys", "sessions", "tombstone_keys",
        "tombstone_views", "tombstones",
    )  # fmt: skip

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.nodes: dict[str, Node] = {}
        self.node_ids: dict[str, str] = {}
        self.services: dict[str, dict[str, NodeService]] = {}
        self.service_names: dict[str, dict[InstanceKey, None]] = {}
        self.service_kinds: dict[str, dict[InstanceKey, None]] = {}
        self.connect_names: dict[str, dict[InstanceKey, None]] = {}
        self.checks: dict[str, dict[str, HealthCheck]] = {}
        self.check_services: dict[str, dict[InstanceKey, None]] = {}
        self.node_keys = SortedKeys()
        self.node_views: Views[NodeRows] = Views(
            # Of the tables, not of self: a cycle would keep a state that was replaced alive.
            partial(_rows_of_node, self.nodes, self.services, self.checks), self.node_keys
        )  # fmt: skip
        self.coordinates: dict[InstanceKey, NodeCoordinate] = {}
        self.kvs: dict[str, DirEntry] = {}
        self.kv_keys = SortedKeys()
        self.kv_views: Views[DirEntry] = Views(self.kvs.get, self.kv_keys)
        self.tombstones: dict[str, int] = {}
        self.tombstone_keys = SortedKeys()
        self.tombstone_views: Views[int] = Views(self.tombstones.get, self.tombstone_keys)
        self.sessions: dict[str, Session] = {}
        self.session_keys: dict[str, dict[str, None]] = {}
        self.federation_states: dict[str, FederationState] = {}
        self.ca_roots: dict[str, CARoot] = {}
        self.ca_config: dict[str, CAConfiguration] = {}
        self.ca_provider_states: dict[str, CAConsulProviderState] = {}
        self.autopilot: dict[str, AutopilotConfig] = {}
        self.config_entries: dict[tuple[str, str], dict[bytes, Any]] = {}
        self.gateway_services: dict[GatewayKey, GatewayService] = {}
        self.gateway_names: dict[str, dict[GatewayKey, None]] = {}
        self.opaque: dict[int, dict[str, dict[bytes, Any]]] = {}
        self.opaque_named: dict[int, dict[str, str]] = {}
        """Keys of opaque rows by another field, where `state.rows` finds them by it too."""

    def max_index(self, *names: str) -> int:
        """The highest index of the named tables; 0 if none was ever written."""
        return max((self.index.get(name, 0) for name in names), default=0)

    def release(self) -> Iterator[None]:
        """Give the rows of a state that was replaced back to the allocator, a slice per step.

        At once it would take 100 ms for a million rows. What a snapshot still reads is left alone.
        """
        if self.kv_views or self.tombstone_views or self.node_views:
            return
        names = [name for name in Tables.__slots__ if isinstance(getattr(self, name), dict)]
        for table in (getattr(self, name) for name in names):
            while table:
                for _ in range(min(len(table), _RELEASE_ROWS)):
                    table.popitem()
                yield
        for keys in (self.kv_keys, self.tombstone_keys):
            while keys.shrink():
                yield


def _rows_of_node(
    nodes: dict[str, Node],
    services: dict[str, dict[str, NodeService]],
    checks: dict[str, dict[str, HealthCheck]],
    key: str,
) -> NodeRows | None:
    node = nodes.get(key)
    if node is None:
        return None
    return node, dict(services.get(key, ())), dict(checks.get(key, ()))


class Transaction:
    """One command's changes to the tables. Either all of them stay or none."""

    __slots__ = ("_undo", "index", "lock_delays", "preserve", "t", "touched")

    def __init__(self, tables: Tables, index: int, *, preserve: bool = False) -> None:
        self.t = tables
        self.index = index
        """The Raft index of the command, which becomes the rows' modify index."""
        self.preserve = preserve
        """Whether rows keep the indexes they bring along (a restore)."""
        self.touched: set[Hashable] = set()
        self.lock_delays: list[tuple[str, int]] = []
        """Keys that lost their locks with a session, and for how many ns nobody may lock them."""
        self._undo: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def put(self, table: dict[K, V], key: K, row: V) -> None:
        """Insert or replace."""
        if key in table:
            self._undo.append((table.__setitem__, (key, table[key])))
        else:
            self._undo.append((table.pop, (key,)))
        table[key] = row

    def remove(self, table: dict[K, V], key: K) -> None:
        """Delete a row that is there."""
        self._undo.append((table.__setitem__, (key, table.pop(key))))

    def group(self, table: dict[K, dict[Any, V]], key: K) -> dict[Any, V]:
        """The inner table `key`, created if missing."""
        inner = table.get(key)
        if inner is None:
            inner = {}
            self.put(table, key, inner)
        return inner

    def ungroup(self, table: dict[K, dict[Any, V]], key: K, member: Any) -> None:
        """Remove `member` from the inner table `key`, and that table if it is then empty."""
        inner = table.get(key)
        if inner is None or member not in inner:
            return
        self.remove(inner, member)
        if not inner:
            self.remove(table, key)

    def add_sorted(self, keys: SortedKeys, key: str) -> None:
        keys.add(key)
        self._undo.append((keys.discard, (key,)))

    def discard_sorted(self, keys: SortedKeys, key: str) -> None:
        keys.discard(key)
        self._undo.append((keys.add, (key,)))

    def bump(self, name: str, index: int | None = None) -> None:
        """Set a table's index to the command's (or to `index`)."""
        self.put(self.t.index, name, self.index if index is None else index)

    def raise_to(self, name: str, index: int) -> None:
        """Set a table's index unless it is higher already."""
        if index > self.t.index.get(name, -1):
            self.put(self.t.index, name, index)

    def touch(self, *keys: Hashable) -> None:
        """Name questions whose answers this changes."""
        self.touched.update(keys)

    def rollback(self) -> None:
        """Undo everything, newest first."""
        for function, arguments in reversed(self._undo):
            function(*arguments)
        self._undo.clear()
        self.touched.clear()

    def forget(self) -> None:
        """Keep everything so far for good; only while nobody can ask for a rollback."""
        self._undo.clear()
        self.touched.clear()
