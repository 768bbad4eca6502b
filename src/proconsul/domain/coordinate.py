"""Network coordinates (`agent/structs/structs.go`, `serf/coordinate`)."""

from __future__ import annotations

from proconsul.domain.base import GoStruct
from proconsul.domain.options import QueryMeta, WriteRequest


class Coordinate(GoStruct, frozen=True, gc=False):
    """A Vivaldi coordinate; vector, adjustment and height are in seconds."""

    vec: list[float] | None = None
    error: float = 0.0
    adjustment: float = 0.0
    height: float = 0.0


class NodeCoordinate(GoStruct, frozen=True, gc=False):
    """Go's `structs.Coordinate`: whose coordinate in which segment."""

    node: str = ""
    segment: str = ""
    coord: Coordinate | None = None


class CoordinateUpdateRequest(WriteRequest, frozen=True, gc=False):
    datacenter: str = ""
    node: str = ""
    segment: str = ""
    coord: Coordinate | None = None


class IndexedCoordinate(QueryMeta, frozen=True, gc=False):
    coord: Coordinate | None = None


class IndexedCoordinates(QueryMeta, frozen=True, gc=False):
    coordinates: list[NodeCoordinate] | None = None


class DatacenterMap(GoStruct, frozen=True, gc=False):
    """The WAN coordinates of one datacenter's servers; the area is `wan`."""

    datacenter: str = ""
    area_id: str = "wan"
    coordinates: list[NodeCoordinate] | None = None
