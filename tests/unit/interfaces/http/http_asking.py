"""Requests of the HTTP interface, on an agent in memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from http_fake_agent import FakeAgent

from proconsul.drivers.http import Request, Response
from proconsul.interfaces.http.api import HttpApi
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.routes import build_api


def make(agent: FakeAgent | None = None, **config: Any) -> tuple[HttpApi, FakeAgent]:
    agent = agent or FakeAgent()
    return build_api(agent, HttpApiConfig(datacenter="dc1", node_name="n1", **config)), agent


async def ask(
    api: HttpApi, method: str, target: str, body: bytes | str = b"", **headers: str
) -> Response:
    request = Request(method, target.encode(), ("127.0.0.1", 5))
    request.body = body.encode() if isinstance(body, str) else body
    request.headers = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    answer = api(request)
    return answer if isinstance(answer, Response) else await answer


def get(api: HttpApi, target: str, **headers: str) -> Response:
    return asyncio.run(ask(api, "GET", target, **headers))


def put(api: HttpApi, target: str, body: Any = b"") -> Response:
    raw = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return asyncio.run(ask(api, "PUT", target, raw))
