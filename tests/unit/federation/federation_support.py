"""Worlds for tests of the federation: gateways by SNI, servers with real TLS, and records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvloop

from proconsul.domain.catalog import (
    CheckServiceNode,
    HealthCheck,
    Node,
    NodeService,
    ServiceAddress,
)
from proconsul.domain.federation import FederationState
from proconsul.drivers.stream import PeerInfo, PushStream
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.rpc.listener import Handlers, ListenerConfig, RpcListener
from proconsul.rpc.server_session import RpcServerSession
from proconsul.testing.certs import CertificateFiles
from proconsul.testing.sni_gateway import SniGateway
from proconsul.util.metrics import Metrics

Address = tuple[str, int]

__all__ = [
    "SniGateway", "TestServer", "closed_port", "contexts", "gateway_node", "run", "soon", "state",
]  # fmt: skip


def run(test: Callable[[], Awaitable[None]], limit_s: float = 20.0) -> None:
    async def main() -> None:
        async with asyncio.timeout(limit_s):
            await test()

    uvloop.run(main())


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def contexts(files: CertificateFiles) -> TlsContexts:
    return TlsContexts(TlsConfig(ca_file=files.ca, cert_file=files.certificate, key_file=files.key))


# -- records -----------------------------------------------------------------------------------


def gateway_node(
    lan: Address,
    wan: Address | None = None,
    *,
    meta: Mapping[str, str] | None = None,
    status: str = "passing",
    node: str = "gw",
    datacenter: str = "dc1",
    output: str = "",
) -> CheckServiceNode:
    """A mesh gateway as the catalog has it."""
    tagged = {"wan": ServiceAddress(*wan)} if wan else None
    return CheckServiceNode(
        node=Node(node=node, address=lan[0], datacenter=datacenter),
        service=NodeService(
            kind="mesh-gateway",
            id="mesh-gateway",
            service="mesh-gateway",
            address=lan[0],
            port=lan[1],
            tagged_addresses=tagged,
            meta={"consul-wan-federation": "1"} if meta is None else dict(meta),
        ),
        checks=[HealthCheck(node=node, check_id="alive", status=status, output=output)],
    )


def state(
    datacenter: str, *nodes: CheckServiceNode, index: int = 1, primary_index: int = 0
) -> FederationState:
    return FederationState(
        datacenter=datacenter,
        mesh_gateways=list(nodes),
        primary_modify_index=primary_index,
        modify_index=index,
    )


# -- real sockets ------------------------------------------------------------------------------


@dataclass
class TestServer:
    """A server's RPC port that answers everything with an empty map."""

    __test__ = False
    tls: TlsContexts
    datacenter: str = "dc2"
    calls: list[str] = field(default_factory=list)

    async def dispatch(self, method: str, _body: bytes, _peer: PeerInfo) -> bytes:
        self.calls.append(method)
        return b"\x80"

    async def _rpc(self, stream: PushStream) -> None:
        await RpcServerSession(stream, self.dispatch, Metrics()).serve()

    async def _closed(self, stream: PushStream) -> None:
        stream.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Address]:
        handlers = Handlers(self._rpc, *([self._closed] * 4))
        listener = RpcListener(ListenerConfig(self.datacenter), handlers, Metrics(), self.tls)
        await listener.start("127.0.0.1", 0)
        try:
            yield ("127.0.0.1", listener.address[1])
        finally:
            await listener.aclose()


def closed_port() -> Address:
    """Where nobody listens."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        return host, port
