"""The gRPC side of the control plane, by a client without Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop
from envoy.service.discovery.v3 import discovery_pb2

from proconsul.interfaces.xds.server import SERVICE, XdsConfig, XdsServer
from proconsul.interfaces.xds.source import ProxyDeniedError, UnknownProxyError
from proconsul.mesh.resources import CLUSTER, LISTENER
from proconsul.mesh.snapshot import Bind, MeshGatewaySnapshot
from proconsul.util.errors import ProconsulError

SNAPSHOT = MeshGatewaySnapshot(
    "gw", "dc1", "consul", "t.consul", (Bind("default", "127.0.0.1", 1),), wan_federation=True
)


class Source:
    """Serves `gw` once; every other id is an error of its own."""

    def __init__(self) -> None:
        self.closed = 0
        self.token = ""

    async def watch(self, proxy_id: str, token: str) -> AsyncIterator[MeshGatewaySnapshot]:
        self.token = token
        if proxy_id == "denied":
            raise ProxyDeniedError("permission denied")
        if proxy_id == "broken":
            raise ValueError("a bug")
        if proxy_id not in {"gw", "leaving"}:
            raise UnknownProxyError(f'proxy "{proxy_id}" is not registered with this agent')
        try:
            yield SNAPSHOT
            if proxy_id == "gw":
                await asyncio.Event().wait()
        finally:
            self.closed += 1


Dial = Callable[..., Any]
Scenario = Callable[[XdsServer, Source, Dial], Awaitable[None]]


def run(scenario: Scenario, loop: Callable[..., Any] = asyncio.run, **config: Any) -> None:
    async def main() -> None:
        source = Source()
        server = XdsServer(XdsConfig(binds=("127.0.0.1:0",), **config), source)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports[0]}") as channel:
                dial = channel.stream_stream(
                    f"/{SERVICE}/DeltaAggregatedResources",
                    request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
                    response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
                )
                async with asyncio.timeout(20):
                    await scenario(server, source, dial)
        finally:
            await server.stop()

    loop(main())


def request(type_url: str = CLUSTER, proxy_id: str = "", **fields: Any) -> Any:
    message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields)
    if proxy_id:
        message.node.id = proxy_id
    return message


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code(), await call.details()


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_stream_from_start_to_end(loop: Callable[..., Any]) -> None:
    async def scenario(server: XdsServer, source: Source, dial: Dial) -> None:
        call = dial(metadata=(("x-consul-token", "secret"),))
        await call.write(request(proxy_id="gw"))
        clusters = await call.read()
        assert clusters.type_url == CLUSTER
        assert [r.name for r in clusters.resources] == ["server.dc1.consul"]
        assert clusters.resources[0].resource.type_url == CLUSTER
        await call.write(request(response_nonce=clusters.nonce))
        await call.write(request(LISTENER))
        listeners = await call.read()
        assert [r.name for r in listeners.resources] == ["default:127.0.0.1:1"]
        refusal = request(LISTENER, response_nonce=listeners.nonce)
        refusal.error_detail.message = "cannot bind"
        await call.write(refusal)
        await call.done_writing()
        assert (await status_of(call))[0] is grpc.StatusCode.OK
        await ended(server)
        assert (server.refusals, source.closed) == (1, 1)
        assert source.token == "secret"

    run(scenario, loop)


async def ended(server: XdsServer) -> None:
    """The caller has its status before the server has closed the stream."""
    async with asyncio.timeout(10):
        while server.streams:  # noqa: ASYNC110 - there is no hook for it
            await asyncio.sleep(0.005)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("proxy_id", "code", "text"),
    [
        ("nobody", grpc.StatusCode.NOT_FOUND, 'proxy "nobody" is not registered'),
        ("denied", grpc.StatusCode.PERMISSION_DENIED, "permission denied"),
        ("broken", grpc.StatusCode.INTERNAL, "ValueError: a bug"),
        ("leaving", grpc.StatusCode.UNAVAILABLE, "has ended"),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "node id"),
    ],
)
def test_the_status_says_why(proxy_id: str, code: grpc.StatusCode, text: str) -> None:
    async def scenario(server: XdsServer, _source: Source, dial: Dial) -> None:
        call = dial()
        await call.write(request(proxy_id=proxy_id))
        found, details = await status_of(call)
        assert found is code
        assert text in details
        await ended(server)

    run(scenario)


def test_streams_are_limited() -> None:
    async def scenario(server: XdsServer, _source: Source, dial: Dial) -> None:
        first = dial()
        await first.write(request(proxy_id="gw"))
        await first.read()
        assert server.streams == 1
        second = dial()
        found, _ = await status_of(second)
        assert found is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()

    # One more than served may connect, so that the refusal can say why.
    run(scenario, streams_max=1)


def test_port_in_use_is_an_error_that_names_it() -> None:
    async def scenario(server: XdsServer, source: Source, _dial: Dial) -> None:
        bind = f"127.0.0.1:{server.ports[0]}"
        with pytest.raises(ProconsulError, match=bind):
            await XdsServer(XdsConfig(binds=(bind,)), source).start()

    run(scenario)


def test_stop_ends_streams() -> None:
    async def scenario(server: XdsServer, source: Source, dial: Dial) -> None:
        call = dial()
        await call.write(request(proxy_id="gw"))
        await call.read()
        await server.stop()
        assert (await status_of(call))[0] is not grpc.StatusCode.OK
        async with asyncio.timeout(5):  # the stream's end may reach us before its clean-up ends
            while source.closed != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(scenario, stop_grace_s=0.05)
