"""The gRPC server of the control plane: delta ADS, v3 alone.

Translates gRPC into calls of `subscriptions`, nothing more. One stream is one task that sends,
one that reads and one that follows the proxy's snapshots; the last two only note what is new and
wake the first, so that every burst of changes becomes one push, and a slow Envoy holds up nobody.

Importing this module loads grpc and the xDS types (about 20 MB): load it with the first proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from proconsul.drivers.scope import TaskScope
from proconsul.interfaces.xds.source import ProxyDeniedError, SnapshotSource, UnknownProxyError
from proconsul.interfaces.xds.subscriptions import Request, Response, Subscriptions
from proconsul.mesh.gateway import mesh_gateway_resources
from proconsul.util.errors import ProconsulError, WireError

log = logging.getLogger("proconsul.envoy")

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
TOKEN_KEY = "x-consul-token"
FIRST_REQUEST_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM contents for serving gRPC over TLS. `client_ca` demands client certificates of it."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class XdsConfig:
    """`binds` are `host:port`, `[v6]:port` or `unix:/path`; port 0 takes a free one."""

    binds: Sequence[str] = ("127.0.0.1:8502",)
    tls: TlsFiles | None = None
    streams_max: int = 1000
    request_bytes_max: int = 4 * 1024 * 1024
    keepalive_interval_s: float = 30.0
    keepalive_timeout_s: float = 10.0
    stop_grace_s: float = 0.2
    """How long streams may finish on `stop`; Envoy keeps its configuration and reconnects."""


class XdsServer:
    """Serves every proxy of one agent. Needs a running event loop (asyncio's or uvloop's)."""

    def __init__(self, config: XdsConfig, source: SnapshotSource) -> None:
        self._config, self._source = config, source
        self._server: grpc.aio.Server | None = None
        self._streams = 0
        self.ports: tuple[int, ...] = ()
        """The ports that were bound, in the order of `config.binds`, after `start`."""
        self.pushes = 0
        """Responses sent, by all streams."""
        self.refusals = 0
        """NACKs received, by all streams."""

    @property
    def streams(self) -> int:
        """Open streams: the proxies that are connected."""
        return self._streams

    async def start(self) -> None:
        """Bind and serve. Raises `ProconsulError` if an address cannot be bound."""
        server = grpc.aio.server(options=self._options())
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        methods = {"DeltaAggregatedResources": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        ports = []
        for bind in self._config.binds:
            try:
                ports.append(self._bind(server, bind))
            except RuntimeError as error:
                await server.stop(None)  # noqa: ASYNC120 - cancelled, nobody needs the reason
                raise ProconsulError(
                    f"cannot serve gRPC on {bind}: {error}; see ports.grpc and addresses.grpc"
                ) from error
        self.ports = tuple(ports)
        self._server = server
        await server.start()

    async def stop(self) -> None:
        """Close the listeners and all streams. Envoys keep what they have."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(self._config.stop_grace_s)

    def _bind(self, server: grpc.aio.Server, bind: str) -> int:
        tls = self._config.tls
        if tls is None:
            return server.add_insecure_port(bind)
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)], tls.client_ca, tls.client_ca is not None
        )
        return server.add_secure_port(bind, credentials)

    def _options(self) -> list[tuple[str, int]]:
        config = self._config
        return [
            # A second agent on the same port is an error, not a silent share of the connections.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", config.request_bytes_max),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", 16 * 1024),
            # More than are served, so that the refusal of the others reaches them.
            ("grpc.max_concurrent_streams", config.streams_max + 100),
            ("grpc.keepalive_time_ms", round(config.keepalive_interval_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(config.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ]

    async def _serve(
        self, _requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        if self._streams >= self._config.streams_max:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"this agent serves {self._config.streams_max} proxies already",
            )
        self._streams += 1
        try:
            await _Stream(self, self._source, context).run()
        finally:
            self._streams -= 1


class _Stream:
    """One connected Envoy."""

    def __init__(
        self,
        server: XdsServer,
        source: SnapshotSource,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        self._server, self._source, self._context = server, source, context
        self._subscriptions = Subscriptions()
        self._wake = asyncio.Event()
        self._end: tuple[grpc.StatusCode, str] | None = None
        self._proxy_id = ""

    async def run(self) -> None:
        """Serve until either side ends the stream; ends with a gRPC status that says why."""
        first = await self._first_request()
        self._proxy_id = first.node.id
        if not self._proxy_id:
            await self._context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "the first request has no node id (the proxy's)"
            )
        log.info("proxy %s connected", self._proxy_id)
        async with TaskScope(f"xds/{self._proxy_id}") as scope:
            _ = scope.spawn("requests", self._read(first))
            _ = scope.spawn("snapshots", self._follow())
            await self._send()
        status, reason = self._end or (grpc.StatusCode.OK, "")
        log.info("proxy %s disconnected%s", self._proxy_id, f": {reason}" if reason else "")
        if status is not grpc.StatusCode.OK:
            await self._context.abort(status, reason)

    async def _first_request(self) -> Any:
        try:
            async with asyncio.timeout(FIRST_REQUEST_S_MAX):
                first = await self._context.read()
        except TimeoutError:
            first = None
        if first is None or first is grpc.aio.EOF:
            await self._context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came")
        return first

    def _finish(self, status: grpc.StatusCode, reason: str) -> None:
        if self._end is None:
            self._end = (status, reason)
        self._wake.set()

    async def _read(self, request: Any) -> None:
        while request is not grpc.aio.EOF:
            try:
                refusal = self._subscriptions.handle(_request(request))
            except WireError as error:
                self._finish(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
                return
            if refusal is not None:
                self._server.refusals += 1
                log.warning(
                    "proxy %s refused its configuration and keeps the last good one: %s (%s: %s)",
                    self._proxy_id,
                    refusal.reason,
                    refusal.type_url.rpartition(".")[2],
                    ", ".join(refusal.names[:10]),
                )
            self._wake.set()
            request = await self._context.read()
        self._finish(grpc.StatusCode.OK, "")

    async def _follow(self) -> None:
        """Keep the target up to date. An error of the source ends the stream: Envoy comes back."""
        try:
            snapshots = self._source.watch(self._proxy_id, self._token())
            async with contextlib.aclosing(cast(Any, snapshots)):
                async for snapshot in snapshots:
                    self._subscriptions.update(mesh_gateway_resources(snapshot))
                    self._wake.set()
            self._finish(grpc.StatusCode.UNAVAILABLE, "the proxy's configuration has ended")
        except UnknownProxyError as error:
            self._finish(grpc.StatusCode.NOT_FOUND, str(error))
        except ProxyDeniedError as error:
            self._finish(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("configuration of proxy %s failed", self._proxy_id)
            self._finish(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    async def _send(self) -> None:
        clock = asyncio.get_running_loop().time
        while self._end is None:
            self._wake.clear()
            for response in self._subscriptions.poll(clock()):
                self._server.pushes += 1
                log.debug(
                    "proxy %s: %d resources and %d removals of %s",
                    self._proxy_id, len(response.resources), len(response.removed),
                    response.type_url,
                )  # fmt: skip
                await self._context.write(_message(response))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._subscriptions.get_timer()):
                    await self._wake.wait()

    def _token(self) -> str:
        for key, value in self._context.invocation_metadata() or ():
            if key == TOKEN_KEY:
                return value.decode() if isinstance(value, bytes) else str(value)
        return ""


def _request(message: Any) -> Request:
    # A subscription by locator asks for the same thing under a newer name.
    return Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe)
        + tuple(locator.name for locator in message.resource_locators_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe)
        + tuple(locator.name for locator in message.resource_locators_unsubscribe),
        initial_versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
    )


def _message(response: Response) -> Any:
    message = discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url, nonce=response.nonce, removed_resources=response.removed
    )
    for resource in response.resources:
        entry = message.resources.add(name=resource.name, version=resource.version)
        entry.resource.type_url = response.type_url
        entry.resource.value = resource.body
    return message
