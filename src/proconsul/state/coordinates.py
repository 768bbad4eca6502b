"""Network coordinates of nodes (`agent/consul/state/coordinate.go`)."""

from __future__ import annotations

import math
from collections.abc import Callable

from proconsul.domain.coordinate import Coordinate, NodeCoordinate
from proconsul.state.tables import COORDINATES, Tables, Transaction
from proconsul.state.watch import Answer, Watch, WatchRegistry


def is_valid(coordinate: Coordinate | None) -> bool:
    """Whether every component is finite."""
    return coordinate is not None and all(
        map(
            math.isfinite,
            (*(coordinate.vec or ()), coordinate.error, coordinate.adjustment, coordinate.height),
        )
    )


def batch_update(tx: Transaction, updates: list[NodeCoordinate]) -> None:
    """Store a batch; invalid coordinates and unknown nodes are left out, without error."""
    for update in updates:
        if update.node.lower() in tx.t.nodes:
            insert(tx, update)
    tx.bump(COORDINATES)


def insert(tx: Transaction, update: NodeCoordinate) -> None:
    """Put a row if it is valid; the caller sets the table's index."""
    if not is_valid(update.coord):
        return
    node = update.node.lower()
    tx.put(tx.t.coordinates, (node, update.segment), update)
    tx.touch(COORDINATES, ("coordinate", node))


class CoordinateQueries:
    """Reads of coordinates."""

    __slots__ = ("_tables", "_watches")

    def __init__(self, tables: Callable[[], Tables], watches: WatchRegistry) -> None:
        self._tables = tables
        self._watches = watches

    def all(self) -> Answer[list[NodeCoordinate]]:
        """All, by node and segment."""
        t = self._tables()
        rows = [t.coordinates[key] for key in sorted(t.coordinates)]
        watch = Watch(self._watches, (COORDINATES,))
        return Answer(max(t.max_index(COORDINATES), 1), rows, watch)

    def sets(self) -> dict[str, dict[str, Coordinate]]:
        """Node (lower case) -> segment -> coordinate."""
        found: dict[str, dict[str, Coordinate]] = {}
        for (node, segment), row in self._tables().coordinates.items():
            if row.coord is not None:
                found.setdefault(node, {})[segment] = row.coord
        return found

    def of_node(self, node: str) -> Answer[list[NodeCoordinate]]:
        """A node's coordinates, one for each segment."""
        t = self._tables()
        rows = [t.coordinates[key] for key in sorted(t.coordinates) if key[0] == node.lower()]
        watch = Watch(self._watches, (("coordinate", node.lower()),))
        return Answer(max(t.max_index(COORDINATES), 1), rows, watch)
