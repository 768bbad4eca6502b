"""The part of the fuzz table that decodes on connections: Raft, HTTP, WAN packets, and xDS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from fuzz_inputs import GOLDEN, Target

from proconsul.drivers.http import HttpServer
from proconsul.drivers.http.protocol import HttpConnection
from proconsul.drivers.raft.transport import Transport
from proconsul.drivers.stream import StreamError, memory_pair
from proconsul.federation.wan_transport import WanTransport
from proconsul.interfaces.http.ports import HttpApiConfig
from proconsul.interfaces.http.routes import build_api
from proconsul.util.errors import WireError
from proconsul.util.metrics import Metrics
from proconsul.wire import raft

_SOURCE = ("127.0.0.9", 7946)


async def _raft_connection(data: bytes) -> None:
    async def opened(_id: str, _address: str, _deadline: float) -> Any:
        raise StreamError("no way")

    def handle(_request: object) -> Any:
        done = asyncio.get_running_loop().create_future()
        done.set_result((raft.TimeoutNowResponse(), ""))
        return done

    async def install(_request: object, chunks: Any) -> tuple[None, str]:
        async for _ in chunks:
            pass
        return None, ""

    ours, theirs = memory_pair()
    theirs.write_nowait(data)
    await theirs.write_eof()
    handler: Any = SimpleNamespace(handle=handle, install=install)
    await Transport(opened).serve(ours, handler)


def _serving(run: Callable[[bytes], Awaitable[None]]) -> Callable[[bytes], None]:
    async def bounded(data: bytes) -> None:
        async with asyncio.timeout(5):
            await run(data)

    return lambda data: asyncio.run(bounded(data))


class _HttpTransport:
    """Takes what is written, and drops it."""

    def __init__(self) -> None:
        self.closed = False

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def write(self, _data: bytes) -> None: ...
    def writelines(self, _data: list[bytes]) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write_eof(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


async def _http(data: bytes) -> None:
    from http_fake_agent import FakeAgent

    agent: Any = FakeAgent()
    api = build_api(agent, HttpApiConfig("dc1", "n1"))
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: failures.append(context))
    server = HttpServer(api, admit=api.admit)
    connection: Any = HttpConnection(server)
    transport = _HttpTransport()
    connection.connection_made(transport)
    for start in range(0, len(data), 16384):
        if transport.closed:
            break
        connection.data_received(data[start : start + 16384])
        await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    await server.aclose(0)
    assert not failures, failures


async def _wan_packets(data: bytes) -> None:
    seen: list[bytes] = []

    async def start(_on_packet: object, _on_stream: object) -> None: ...
    async def aclose() -> None: ...

    inner: Any = SimpleNamespace(start=start, aclose=aclose, address=_SOURCE)
    dialer: Any = None
    wan = WanTransport(inner, "dc1", dialer, Metrics())

    async def on_stream(_stream: object) -> None: ...

    await wan.start(lambda packet, _source: seen.append(packet), on_stream)
    ours, theirs = memory_pair()
    theirs.write_nowait(data)
    await theirs.write_eof()
    await wan.ingest_packets(ours)
    await wan.aclose()


def connections() -> list[Target]:
    """The part of the table that needs an event loop, and xDS."""
    get = b"GET /v1/kv/a?dc=dc1&index=3&wait=1ms&recurse HTTP/1.1\r\nHost: a\r\n\r\n"
    put = b"PUT /v1/kv/a?cas=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    chunked = (
        b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'a\r\n{"Name":"a\r\n2\r\n"}\r\n0\r\n\r\n'
    )
    packets = b"\0\0\0\x05hello\0\0\0\x01x"
    vectors = json.loads((GOLDEN / "raft" / "messages.json").read_text())
    requests = [bytes.fromhex(v["request"]) for v in vectors.values() if "request" in v]
    return [
        Target("raft connection", _serving(_raft_connection), requests, (), weight=0.2),
        Target("HTTP connection", _serving(_http), [get, put, chunked, get + put], (), 0.2),
        Target("WAN packet connection", _serving(_wan_packets), [packets], (), 0.2),
        _xds(),
    ]


def _xds() -> Target:
    from google.protobuf.message import DecodeError

    from proconsul.interfaces.xds.server import _request, discovery_pb2
    from proconsul.interfaces.xds.subscriptions import Subscriptions
    from proconsul.mesh.resources import CLUSTER, ENDPOINT

    def run(data: bytes) -> None:
        subscriptions = Subscriptions()
        for _ in range(2):
            message = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
            subscriptions.handle(_request(message))
            subscriptions.poll(1.0)

    messages = [
        discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, initial_resource_versions={"a": "1"}),
        discovery_pb2.DeltaDiscoveryRequest(
            type_url=ENDPOINT, resource_names_subscribe=["a", "*"], response_nonce="1"
        ),
    ]
    messages[1].node.id = "gateway"
    messages[1].error_detail.message = "no"
    samples = [message.SerializeToString() for message in messages]
    return Target("xDS request", run, samples, (WireError, DecodeError))
