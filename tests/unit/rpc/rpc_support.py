"""A server port with small handlers, and dialers, for tests of the RPC transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvloop

from proconsul.drivers.stream import PeerInfo, PushStream
from proconsul.drivers.tcp import connect
from proconsul.drivers.tls import client_handshake
from proconsul.drivers.tls_config import TlsConfig, TlsContexts
from proconsul.rpc.dialer import Destination, Purpose
from proconsul.rpc.listener import Handlers, ListenerConfig, RpcListener
from proconsul.rpc.server_session import RpcServerSession
from proconsul.testing.certs import CertificateFiles
from proconsul.util.errors import ProconsulError
from proconsul.util.metrics import Metrics


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    uvloop.run(main())


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def contexts(files: CertificateFiles, **verify: bool) -> TlsContexts:
    return TlsContexts(
        TlsConfig(ca_file=files.ca, cert_file=files.certificate, key_file=files.key, **verify)
    )


@dataclass
class Service:
    """What the test server did."""

    metrics: Metrics = field(default_factory=Metrics)
    calls: list[str] = field(default_factory=list)
    cancelled: int = 0
    peers: list[PeerInfo] = field(default_factory=list)

    async def dispatch(self, method: str, body: bytes, peer: PeerInfo) -> bytes:
        self.calls.append(method)
        self.peers.append(peer)
        if method == "Test.Fail":
            raise ProconsulError("no such thing")
        if method == "Test.Bug":
            raise KeyError("secret")
        if method == "Test.Slow":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return body

    async def rpc(self, stream: PushStream) -> None:
        await RpcServerSession(stream, self.dispatch, self.metrics).serve()

    def tagged(self, tag: bytes) -> Callable[[PushStream], Awaitable[None]]:
        """A handler that says which it is, then echoes."""

        async def handle(stream: PushStream) -> None:
            await stream.write(tag)
            while data := await stream.read():
                await stream.write(data)

        return handle

    @asynccontextmanager
    async def listening(
        self,
        tls: TlsContexts | None = None,
        *,
        timeout_s: float = 5.0,
        max_conns_per_client: int = 100,
        servers_have_names: bool = False,
    ) -> AsyncIterator[RpcListener]:
        handlers = Handlers(
            self.rpc,
            self.tagged(b"raft"),
            self.tagged(b"snap"),
            self.tagged(b"pckt"),
            self.tagged(b"strm"),
        )
        config = ListenerConfig(
            "dc1",
            handshake_timeout_s=timeout_s,
            max_conns_per_client=max_conns_per_client,
            servers_have_names=servers_have_names,
        )
        listener = RpcListener(config, handlers, self.metrics, tls)
        await listener.start("127.0.0.1", 0)
        try:
            yield listener
        finally:
            await listener.aclose()


@dataclass
class NativeDialer:
    """Dials as through a gateway: native TLS with ALPN."""

    tls: TlsContexts

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> PushStream:
        name = f"{to.node}.server.{to.datacenter}.consul"
        return await client_handshake(
            await connect(to.address, deadline),
            self.tls.client(alpn=purpose.alpn),
            deadline=deadline,
            server_name=name,
            needed_name=name,
            alpn=purpose.alpn,
        )
