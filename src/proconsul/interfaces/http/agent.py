"""`/v1/agent/` about the agent itself: self, members, metrics, join, leave, reload, maintenance."""

from __future__ import annotations

import os
import platform
import socket
import time
from typing import Any

from proconsul.domain.errors import PermissionDeniedError
from proconsul.drivers.http import Response
from proconsul.interfaces.http import views
from proconsul.interfaces.http.answers import text_answer
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.errors import HttpError, bad_request
from proconsul.interfaces.http.query import Ask, parse_bool
from proconsul.util.goquote import go_quote
from proconsul.util.metrics import PROMETHEUS_CONTENT_TYPE

ALL_SEGMENTS = "_all"


async def self_(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/self"""
    info = dict(await api.agent.self_info(api.token(ask)))
    found = info.get("Member")
    if found is not None and not isinstance(found, dict):
        info["Member"] = views.member(found)
    return api.json(ask, info)


async def members(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/members"""
    wan = bool(ask.first("wan"))
    segment = ask.first("segment")
    if wan and segment not in {"", ALL_SEGMENTS}:
        raise bad_request("Cannot provide a segment with wan=true")
    if segment not in {"", ALL_SEGMENTS}:
        raise HttpError(500, "Network segments are not supported in this version of Consul")
    found = await api.agent.members(wan, segment, api.token(ask))
    return api.json(ask, [views.member(one) for one in found])


async def metrics(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/metrics"""
    may = await api.agent.authorizer(api.token(ask))
    if not may.agent_read(api.config.node_name):
        raise PermissionDeniedError
    if not _wants_prometheus(ask):
        return api.json(ask, api.agent.metrics.summary())
    if api.config.prometheus_retention_s <= 0:
        reason = "Prometheus is not enabled since its retention time is not positive"
        return text_answer(415, reason)
    head = f"Content-Type: {PROMETHEUS_CONTENT_TYPE}\r\n".encode()
    return Response(200, api.agent.metrics.prometheus().encode(), head)


def _wants_prometheus(ask: Ask) -> bool:
    if ask.first("format") == "prometheus":
        return True
    for part in ask.request.header(b"accept").split(","):
        mime, *parameters = (piece.strip() for piece in part.split(";"))
        if mime.lower() == "application/openmetrics-text":
            return True
        if mime.lower() == "text/plain" and parameters[:1] == ["version=0.4.0"]:
            return True
    return False


async def host(api: HttpApi, ask: Ask) -> Response:
    """GET /v1/agent/host, the part that needs no more than the kernel's own figures."""
    if not (await api.agent.authorizer(api.token(ask))).operator_read():
        raise PermissionDeniedError
    pages = {name: os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES", "SC_PAGESIZE")}
    total = pages["SC_PHYS_PAGES"] * pages["SC_PAGESIZE"]
    available = pages["SC_AVPHYS_PAGES"] * pages["SC_PAGESIZE"]
    view: dict[str, Any] = {
        "Memory": {
            "total": total,
            "available": available,
            "used": total - available,
            "usedPercent": round(100.0 * (total - available) / total, 3) if total else 0,
        },
        "CPU": [{"cpu": index} for index in range(os.cpu_count() or 1)],
        "Host": {
            "hostname": socket.gethostname(),
            "os": platform.system().lower(),
            "kernelVersion": platform.release(),
            "kernelArch": platform.machine(),
        },
        "CollectionTime": time.time_ns(),
        "Errors": None,
    }
    return api.json(ask, view)


async def join(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/join/:address"""
    wan = bool(ask.first("wan"))
    if wan and api.config.wan_join_disabled:
        raise HttpError(
            500, "WAN join is disabled when wan federation via mesh gateways is enabled"
        )
    await api.agent.join(ask.rest, wan, api.token(ask))
    return Response()


async def leave(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/leave"""
    await api.agent.leave(api.token(ask))
    return Response()


async def force_leave(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/force-leave/:node"""
    await api.agent.force_leave(ask.rest, ask.has("prune"), api.token(ask))
    return Response()


async def reload(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/reload"""
    await api.agent.reload(api.token(ask))
    return Response()


def enable_of(ask: Ask) -> bool:
    """`?enable`, which maintenance must have."""
    if not ask.has("enable"):
        raise bad_request("Missing value for enable")
    raw = ask.first("enable")
    enable = parse_bool(raw)
    if enable is None:
        raise bad_request(f"Invalid value for enable: {go_quote(raw)}")
    return enable


async def maintenance(api: HttpApi, ask: Ask) -> Response:
    """PUT /v1/agent/maintenance"""
    enable = enable_of(ask)
    await api.agent.node_maintenance(enable, ask.first("reason"), api.token(ask))
    return Response()
