"""The server port (8300), which tells by the first byte what a connection is for.

Follows `handleConn` and `handleNativeTLS` in agent/consul/rpc.go. A first byte above 7 begins a TLS
ClientHello: native TLS, whose ALPN name says what for and whose client certificate is always
verified. Otherwise it is a type byte. What a certificate entitles to is decided here
(`docs/divergence.md`: Raft and WAN gossip demand server names in it).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from proconsul.drivers.buffer import StreamError
from proconsul.drivers.scope import TaskScope
from proconsul.drivers.stream import PeerInfo, PushStream
from proconsul.drivers.tcp import Server, TcpStream
from proconsul.drivers.tls import TlsStream, server_handshake
from proconsul.drivers.tls_config import TlsContexts
from proconsul.drivers.tls_errors import TlsError
from proconsul.rpc.dialer import TYPE_BYTE_TLS, TYPE_BYTE_TLS_INSECURE, Purpose
from proconsul.rpc.limits import ConnectionLimiter
from proconsul.rpc.server_session import REQUEST_BYTES_MAX
from proconsul.rpc.yamux_session import Budget, YamuxSession, YamuxStream
from proconsul.util.address import host_port
from proconsul.util.metrics import Metrics

log = logging.getLogger("proconsul.rpc")

TYPE_BYTE_MAX = 7
ALPN_NAMES = tuple(purpose.alpn for purpose in Purpose)
_BY_ALPN = {purpose.alpn: purpose for purpose in Purpose}
_BY_TYPE_BYTE = {p.type_byte: p for p in Purpose if p.type_byte is not None}

BUDGET = Budget(REQUEST_BYTES_MAX + (32 << 20), REQUEST_BYTES_MAX + (32 << 20))
"""Of one multiplexed connection: a largest request, and many usual ones beside it."""

StreamHandler: TypeAlias = Callable[[PushStream], Awaitable[None]]
"""Owns the stream until it returns; the connection is closed then."""


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """`max_conns_per_client` 0 means no limit. Times in seconds."""

    datacenter: str
    domain: str = "consul"
    handshake_timeout_s: float = 5.0
    max_conns_per_client: int = 100
    insecure_tls: bool = False
    """Serve type byte 7: TLS without a client certificate, for AutoEncrypt and AutoConfig."""
    servers_have_names: bool = False
    """All servers' certificates are known to name servers, as in a federation through gateways."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """Where streams go. `on_rpc` gets single connections and every multiplexed stream."""

    on_rpc: StreamHandler
    on_raft: StreamHandler
    on_snapshot: StreamHandler
    on_wan_packet: StreamHandler
    on_wan_stream: StreamHandler
    on_insecure_rpc: StreamHandler | None = None


class RpcListener:
    """Accepts on the server port and dispatches to `Handlers`."""

    def __init__(
        self,
        config: ListenerConfig,
        handlers: Handlers,
        metrics: Metrics,
        tls: TlsContexts | None = None,
    ) -> None:
        self._config, self._handlers, self._metrics, self._tls = config, handlers, metrics, tls
        self.limiter = ConnectionLimiter(config.max_conns_per_client)
        """Assign `limiter.gateways` when the known gateways change."""
        self._server = Server(self._handle, name="rpc", admit=self._admit)

    async def start(self, host: str, port: int) -> None:
        """Listen on (host, port). Raises `OSError`."""
        await self._server.start(host, port)

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that is listened on."""
        return self._server.address

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._server.connections

    async def aclose(self) -> None:
        """Stop listening and drop every connection."""
        await self._server.aclose()

    # -- accepting

    def _admit(self, stream: TcpStream) -> bool:
        host = stream.peer.address[0]
        if self.limiter.acquire(host):
            self._metrics.incr("consul.rpc.accept_conn")
            return True
        self._too_many(stream.peer)
        return False

    def _too_many(self, peer: PeerInfo) -> None:
        self._metrics.incr("consul.rpc.conn_limit_exceeded")
        log.error(
            "rejecting RPC conn because rpc_max_conns_per_client exceeded: conn=%s", _from(peer)
        )

    async def _handle(self, stream: TcpStream) -> None:
        key = _Held(self.limiter, stream.peer.address[0])
        try:
            await self._sniff(stream, key)
        except TlsError as error:
            log.error("TLS handshake failed: conn=%s error=%s", _from(stream.peer), error)
        except TimeoutError:
            log.error("failed to read first byte: conn=%s error=i/o timeout", _from(stream.peer))
        except StreamError as error:
            log.debug("connection ended: conn=%s error=%s", _from(stream.peer), error)
        finally:
            key.release()

    async def _sniff(self, stream: TcpStream, key: _Held) -> None:
        deadline = asyncio.get_running_loop().time() + self._config.handshake_timeout_s
        async with asyncio.timeout_at(deadline):
            first = await stream.peek()
        if first is None:
            return
        tls = self._tls
        if first > TYPE_BYTE_MAX and tls is not None and tls.config.mutual_tls_capable:
            await self._native_tls(stream, tls, deadline, key)
            return
        await stream.read_exactly(1)
        if first == TYPE_BYTE_TLS and tls is not None:
            await self._wrapped_tls(stream, tls, deadline)
        elif first == TYPE_BYTE_TLS_INSECURE and tls is not None:
            await self._insecure_tls(stream, tls, deadline)
        elif tls is not None and tls.config.verify_incoming and first != TYPE_BYTE_TLS:
            log.warning(
                "Non-TLS connection attempted with VerifyIncoming set: conn=%s", _from(stream.peer)
            )
        else:
            await self._typed(stream, first)

    async def _native_tls(
        self, stream: TcpStream, tls: TlsContexts, deadline: float, key: _Held
    ) -> None:
        context = tls.server(client_certificate=True, alpn=ALPN_NAMES)
        secure = await server_handshake(stream, context, deadline=deadline, alpn=True)
        async with _established(secure):
            # From here on the client is its certificate: remote ones share a gateway's address.
            if not key.become(f"certificate {secure.peer.certificate_id}"):
                self._too_many(secure.peer)
                return
            purpose = _BY_ALPN[secure.peer.alpn or ""]
            log.debug(
                "accepted nativeTLS RPC: sni=%s protocol=%s conn=%s",
                secure.peer.server_name, purpose.alpn, _from(secure.peer),
            )  # fmt: skip
            if self._entitled(secure.peer, purpose):
                await self._dispatch(secure, purpose)

    async def _wrapped_tls(self, stream: TcpStream, tls: TlsContexts, deadline: float) -> None:
        context = tls.server(client_certificate=tls.config.verify_incoming)
        secure = await server_handshake(stream, context, deadline=deadline)
        async with _established(secure):
            async with asyncio.timeout_at(deadline):
                first = await secure.read(1)
            if not first:
                return
            if first[0] in {TYPE_BYTE_TLS, TYPE_BYTE_TLS_INSECURE}:
                log.error(
                    "TLS connection attempting to establish inner TLS connection: conn=%s",
                    _from(stream.peer),
                )
                return
            await self._typed(secure, first[0])

    async def _insecure_tls(self, stream: TcpStream, tls: TlsContexts, deadline: float) -> None:
        handler = self._handlers.on_insecure_rpc
        if not self._config.insecure_tls or handler is None:
            log.error("insecure TLS is not enabled: conn=%s", _from(stream.peer))
            return
        context = tls.server(client_certificate=False)
        secure = await server_handshake(stream, context, deadline=deadline)
        async with _established(secure):
            await handler(secure)

    # -- dispatching

    async def _typed(self, stream: PushStream, type_byte: int) -> None:
        purpose = _BY_TYPE_BYTE.get(type_byte)
        if purpose is None:
            log.error("unrecognized RPC byte: byte=%d conn=%s", type_byte, _from(stream.peer))
            return
        if self._typed_entitled(stream.peer, purpose):
            await self._dispatch(stream, purpose)

    async def _dispatch(self, stream: PushStream, purpose: Purpose) -> None:
        handlers = self._handlers
        match purpose:
            case Purpose.RPC_SINGLE:
                await handlers.on_rpc(stream)
            case Purpose.RPC_MULTI:
                await self._multiplex(stream)
            case Purpose.RAFT:
                self._metrics.incr("consul.rpc.raft_handoff")
                await handlers.on_raft(stream)
            case Purpose.RPC_SNAPSHOT:
                await handlers.on_snapshot(stream)
            case Purpose.WAN_GOSSIP_PACKET:
                await handlers.on_wan_packet(stream)
            case Purpose.WAN_GOSSIP_STREAM:
                await handlers.on_wan_stream(stream)
            case Purpose.RPC_GOSSIP:
                log.error("network areas are not served: conn=%s", _from(stream.peer))

    async def _multiplex(self, stream: PushStream) -> None:
        async with TaskScope("rpc-multi") as scope:

            def accepted(substream: YamuxStream) -> None:
                _ = scope.spawn("stream", self._serve(substream))

            session = YamuxSession(stream, client=False, on_stream=accepted, budget=BUDGET)
            try:
                await session.wait_closed()
            finally:
                session.abort()

    async def _serve(self, stream: PushStream) -> None:
        try:
            await self._handlers.on_rpc(stream)
        except StreamError as error:
            log.debug("stream ended: conn=%s error=%s", _from(stream.peer), error)
        finally:
            await stream.aclose()

    # -- rights by certificate

    def _typed_entitled(self, peer: PeerInfo, purpose: Purpose) -> bool:
        # Names bind only where all servers are told to carry them (ADR 7).
        tls = self._tls
        if tls is None or not (peer.tls and tls.config.verify_incoming):
            return True
        named = tls.config.verify_server_hostname or self._config.servers_have_names
        return not named or self._entitled(peer, purpose)

    def _entitled(self, peer: PeerInfo, purpose: Purpose) -> bool:
        domain = self._config.domain.rstrip(".")
        if purpose is Purpose.RAFT:
            needed = f"server.{self._config.datacenter}.{domain}"
            allowed = needed in peer.dns_names
        elif purpose in {Purpose.WAN_GOSSIP_PACKET, Purpose.WAN_GOSSIP_STREAM}:
            needed = f"server.<datacenter>.{domain}"
            allowed = any(_is_server_name(name, domain) for name in peer.dns_names)
        else:
            return True
        if not allowed:
            self._metrics.incr("consul.rpc.unauthorized")
            log.warning(
                "refusing %s: certificate needs %s, offers %s: conn=%s",
                purpose.alpn, needed, ", ".join(peer.dns_names) or "none", _from(peer),
            )  # fmt: skip
        return allowed


class _Held:
    """The one slot of the limiter that a connection holds, under changing keys."""

    def __init__(self, limiter: ConnectionLimiter, key: str) -> None:
        self._limiter, self._key = limiter, key

    def become(self, key: str) -> bool:
        """Hold a slot of `key` instead; False, and as before, if it has none free."""
        if not self._limiter.acquire(key):
            return False
        self._limiter.release(self._key)
        self._key = key
        return True

    def release(self) -> None:
        self._limiter.release(self._key)


@contextlib.asynccontextmanager
async def _established(secure: TlsStream) -> AsyncIterator[None]:
    """Serve a stream whose handshake is done: its end, however abrupt, is no handshake's failure."""
    try:
        yield
    except StreamError as error:
        log.debug("connection ended: conn=%s error=%s", _from(secure.peer), error)
    except asyncio.CancelledError:
        secure.abort()
        raise
    finally:
        await secure.aclose()


def _is_server_name(name: str, domain: str) -> bool:
    label, _, rest = name.partition(".")
    datacenter, _, tail = rest.partition(".")
    return label == "server" and bool(datacenter) and tail == domain


def _from(peer: PeerInfo) -> str:
    return f"from={host_port(peer.address)}"
