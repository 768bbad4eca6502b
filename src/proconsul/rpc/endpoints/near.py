"""`?near`: rows by the round trip from a node, as its network coordinate says (agent/consul/rtt.go)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from proconsul.core.gossip.serf.coordinate import Coordinate as Position
from proconsul.domain.coordinate import Coordinate
from proconsul.domain.options import QuerySource
from proconsul.rpc.endpoints.base import EndpointServer
from proconsul.state.store import Store

T = TypeVar("T")


def near(
    server: EndpointServer, source: QuerySource, rows: list[T], node_of: Callable[[T], str]
) -> list[T]:
    """`rows` as the source of a query wants them; those of other datacenters cannot be compared."""
    if not source.node or source.datacenter != server.datacenter:
        return rows
    return nearest_first(server.store, source.node, rows, node_of)


def nearest_first(store: Store, node: str, rows: list[T], node_of: Callable[[T], str]) -> list[T]:
    """By the distance from `node`, those without a known one last; as it is if `node`'s is unknown."""
    sets = store.coordinates.sets()
    own = sets.get(node.lower())
    if not own:
        return rows
    distances: dict[str, float] = {}
    for row in rows:
        name = node_of(row)
        if name not in distances:
            distances[name] = _distance_s(own, sets.get(name.lower()) or {})
    return sorted(rows, key=lambda row: distances[node_of(row)])


def _distance_s(one: dict[str, Coordinate], two: dict[str, Coordinate]) -> float:
    """Within a segment that both are in: a client is in one only, a server in all."""
    segment = next(iter(one)) if len(one) == 1 else ""
    if len(two) == 1:
        segment = next(iter(two))
    a, b = one.get(segment), two.get(segment)
    if a is None or b is None or len(a.vec or ()) != len(b.vec or ()):
        return math.inf
    return _position(a).distance_to(_position(b))


def _position(coord: Coordinate) -> Position:
    return Position(tuple(coord.vec or ()), coord.error, coord.adjustment, coord.height)
