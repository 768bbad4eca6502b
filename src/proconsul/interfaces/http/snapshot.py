"""`/v1/snapshot`: the state of all servers, out and in (`agent/snapshot_endpoint.go`)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from proconsul.domain.snapshot import SnapshotOp, SnapshotRequest
from proconsul.drivers.http import Request, Response
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.query import Ask
from proconsul.rpc.snapshot_stream import nothing

_HEAD = b"Content-Type: application/x-gzip\r\n"
"""What Go makes of the first bytes."""


async def snapshot(api: HttpApi, ask: Ask) -> Response:
    """GET saves, PUT restores; with `?stale` any server may save."""
    saves = ask.request.method == "GET"
    request = SnapshotRequest(
        datacenter=ask.first("dc") or api.config.datacenter,
        token=api.token(ask),
        allow_stale=ask.has("stale"),
        op=SnapshotOp.SAVE if saves else SnapshotOp.RESTORE,
    )
    if not saves:
        _, nothing_more = await api.agent.snapshot(request, _body(ask.request))
        await nothing_more.aclose()
        return Response(200)
    response, archive = await api.agent.snapshot(request, nothing())
    return Response(200, head=api.meta(response) + _HEAD, stream=archive)


async def _body(request: Request) -> AsyncIterator[bytes]:
    spool = request.spool
    if spool is None:
        yield request.body
        return
    async for chunk in spool:
        yield chunk
