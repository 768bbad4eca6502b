"""`Internal.*` and `Coordinate.*` (agent/consul/internal_endpoint.go, coordinate_endpoint.go)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from proconsul.domain import catalog as c
from proconsul.domain import coordinate as co
from proconsul.domain import options as o
from proconsul.domain.errors import PermissionDeniedError
from proconsul.domain.filter import create_filter
from proconsul.domain.messages import MessageType
from proconsul.rpc.endpoints.base import EndpointServer, RequestError, read
from proconsul.rpc.endpoints.vetting import allowed_dump, allowed_instances
from proconsul.rpc.methods import METHODS, Empty
from proconsul.rpc.table import Call, Endpoint, Requires
from proconsul.state.coordinates import is_valid
from proconsul.util.errors import ProconsulError

log = logging.getLogger("proconsul.coordinate")

DIMENSIONALITY = 8
"""Of every Vivaldi coordinate that Serf's configuration in Consul makes."""
COORDINATE_BATCH = 128
COORDINATE_BATCHES_MAX = 5


class Internal:
    """Dumps for user interfaces and proxies."""

    def __init__(self, server: EndpointServer) -> None:
        self._server = server

    async def node_info(self, request: o.NodeSpecificRequest, call: Call) -> c.IndexedNodeDump:
        return await self._dump(request, request.node, call)

    async def node_dump(self, request: o.DCSpecificRequest, call: Call) -> c.IndexedNodeDump:
        return await self._dump(request, None, call)

    async def _dump(
        self, options: o.QueryOptions, node: str | None, call: Call
    ) -> c.IndexedNodeDump:
        # Consul's NodeInfo takes no filter.
        wanted = create_filter(options.filter if node is None else "", c.NodeInfo)
        return await read(
            self._server,
            options,
            lambda: self._server.store.catalog.node_dump(node),
            lambda rows: {"dump": wanted.rows(allowed_dump(rows, call.authorizer))},
            c.IndexedNodeDump,
        )

    async def service_dump(
        self, request: o.ServiceDumpRequest, call: Call
    ) -> c.IndexedCheckServiceNodes:
        kind = request.service_kind if request.use_service_kind else None
        wanted = create_filter(request.filter, c.CheckServiceNode)
        return await read(
            self._server,
            request,
            lambda: self._server.store.catalog.service_dump(kind),
            lambda rows: {"nodes": wanted.rows(allowed_instances(rows, call.authorizer))},
            c.IndexedCheckServiceNodes,
        )


class Coordinates:
    """Network coordinates of the LAN. Updates are gathered and committed in batches."""

    def __init__(self, server: EndpointServer, wan: Callable[[], list[co.DatacenterMap]]) -> None:
        self._server, self._wan = server, wan
        self._pending: dict[tuple[str, str], co.NodeCoordinate] = {}
        self._discarded = 0

    async def update(self, request: co.CoordinateUpdateRequest, call: Call) -> Empty:
        if not is_valid(request.coord):
            raise RequestError("invalid coordinate")
        if request.coord is None or len(request.coord.vec or ()) != DIMENSIONALITY:
            raise RequestError("incompatible coordinate")
        if not call.authorizer.node_write(request.node):
            raise PermissionDeniedError
        key = (request.node, request.segment)
        full = len(self._pending) >= COORDINATE_BATCH * COORDINATE_BATCHES_MAX
        if key in self._pending or not full:
            self._pending[key] = co.NodeCoordinate(request.node, request.segment, request.coord)
        else:
            self._discarded += 1
        return Empty()

    async def flush_forever(self, period_s: float) -> None:
        """Commit what has gathered, every `period_s`."""
        while True:
            await asyncio.sleep(period_s)
            pending, self._pending = list(self._pending.values()), {}
            if self._discarded:
                log.warning("Discarded coordinate updates: number_discarded=%d", self._discarded)
                self._discarded = 0
            try:
                for start in range(0, len(pending), COORDINATE_BATCH):
                    batch = pending[start : start + COORDINATE_BATCH]
                    await self._server.apply(
                        MessageType.COORDINATE_BATCH_UPDATE, batch, may_ignore=True
                    )
            except (ProconsulError, TimeoutError) as error:
                log.warning("Batch update failed: %s", error)

    async def list_datacenters(self, _request: Empty | None, _call: Call) -> list[co.DatacenterMap]:
        return self._wan()

    async def list_nodes(self, request: o.DCSpecificRequest, call: Call) -> co.IndexedCoordinates:
        return await self._read(request, None, call)

    async def node(self, request: o.NodeSpecificRequest, call: Call) -> co.IndexedCoordinates:
        if not call.authorizer.node_read(request.node):
            raise PermissionDeniedError
        return await self._read(request, request.node, call)

    async def _read(
        self, options: o.QueryOptions, node: str | None, call: Call
    ) -> co.IndexedCoordinates:
        coordinates = self._server.store.coordinates
        may = call.authorizer.node_read

        def build(rows: list[co.NodeCoordinate]) -> dict[str, Any]:
            return {"coordinates": [r for r in rows if may(r.node)]}

        return await read(
            self._server,
            options,
            lambda: coordinates.all() if node is None else coordinates.of_node(node),
            build,
            co.IndexedCoordinates,
        )


def endpoints(server: EndpointServer, coordinates: Coordinates) -> list[Endpoint]:
    """All of `Internal` and `Coordinate` that is served."""
    it = Internal(server)
    return [
        Endpoint(METHODS["Internal.NodeInfo"], Requires.NODE_READ, it.node_info),
        Endpoint(METHODS["Internal.NodeDump"], Requires.NODE_READ, it.node_dump),
        Endpoint(METHODS["Internal.ServiceDump"], Requires.SERVICE_READ, it.service_dump),
        Endpoint(METHODS["Coordinate.Update"], Requires.NODE_WRITE, coordinates.update),
        Endpoint(METHODS["Coordinate.ListNodes"], Requires.NODE_READ, coordinates.list_nodes),
        Endpoint(
            METHODS["Coordinate.ListDatacenters"], Requires.NOTHING, coordinates.list_datacenters
        ),
        Endpoint(METHODS["Coordinate.Node"], Requires.NODE_READ, coordinates.node),
    ]
