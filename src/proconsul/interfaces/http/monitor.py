"""GET /v1/agent/monitor: the agent's log as it is written (`agent/agent_endpoint.go`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from proconsul.domain.errors import PermissionDeniedError
from proconsul.drivers.http import Response
from proconsul.drivers.logs import Monitor, is_level
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import bad_request
from proconsul.interfaces.http.query import Ask

log = logging.getLogger("proconsul.http")


async def monitor(api: HttpApi, ask: Ask) -> Response:
    """Lines at `?loglevel` (INFO) and above, as JSON with `?logjson`, until the client goes."""
    may = await api.agent.authorizer(api.token(ask))
    if not may.agent_read(api.config.node_name):
        raise PermissionDeniedError
    level = ask.first("loglevel") or "INFO"
    if not is_level(level):
        raise bad_request(f"Bad request: Unknown log level: {level}")
    return Response(200, stream=_lines(level, as_json=ask.has("logjson")))


async def _lines(level: str, *, as_json: bool) -> AsyncIterator[bytes]:
    loop, more = asyncio.get_running_loop(), asyncio.Event()
    source = Monitor(level, as_json=as_json, wake=lambda: _on(loop, more))
    try:
        while True:
            await more.wait()
            more.clear()
            yield source.take().encode("utf-8", "replace")
    finally:
        source.close()
        if source.dropped:
            log.warning("Dropped logs during monitor request: dropped_count=%d", source.dropped)


def _on(loop: asyncio.AbstractEventLoop, more: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(more.set)
