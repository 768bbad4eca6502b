"""Calls without a client's certificate, by which agents get one (AutoEncrypt).

A connection of type byte 7: TLS follows, inside of it net/rpc at once, for one call. After
`rpcInsecure` of agent/pool and `handleInsecureConn` of agent/consul/rpc.go.
"""

from __future__ import annotations

import asyncio

from proconsul.drivers.buffer import StreamError
from proconsul.drivers.stream import PeerInfo, PushStream
from proconsul.drivers.tcp import ConnectError, connect
from proconsul.drivers.tls import client_handshake
from proconsul.drivers.tls_config import TlsContexts
from proconsul.drivers.tls_errors import TlsError
from proconsul.rpc.connection import RpcClientStream
from proconsul.rpc.dialer import TYPE_BYTE_TLS_INSECURE, Destination, Hop, HopError
from proconsul.rpc.server_session import Dispatch
from proconsul.rpc.table import UnknownMethod

METHODS = frozenset({"AutoEncrypt.Sign"})
REQUEST_BYTES_MAX = 64 * 1024
"""Nobody has proved yet who it is: a signing request and a token are a few KB."""
RESPONSE_BYTES_MAX = 4 * 1024 * 1024


def only_insecure(dispatch: Dispatch) -> Dispatch:
    """`dispatch` for callers without a certificate: nothing else exists for them."""

    async def limited(method: str, body: bytes, peer: PeerInfo) -> bytes:
        if method not in METHODS:
            raise UnknownMethod(f"rpc: can't find service {method}")
        return await dispatch(method, body, peer)

    return limited


class InsecureCaller:
    """Calls servers by their addresses; what they answer is encrypted, and verified if a CA is known."""

    def __init__(self, tls: TlsContexts, domain: str, source: str | None) -> None:
        """`source` is the IP address to dial from."""
        self._tls, self._domain, self._source = tls, domain.rstrip("."), source

    async def call(self, to: Destination, method: str, body: bytes, deadline: float) -> bytes:
        """The answer. Raises `HopError`, `RemoteError`, `TransportError`, `TimeoutError`."""
        local = (self._source, 0) if self._source else None
        try:
            stream: PushStream = await connect(to.address, deadline, local)
        except ConnectError as error:
            raise HopError(Hop.DIAL, to.datacenter, str(error)) from error
        try:
            secure = await self._secured(stream, to, deadline)
            async with asyncio.timeout_at(deadline):
                return await RpcClientStream(secure, RESPONSE_BYTES_MAX).call(method, body)
        except TlsError as error:
            raise HopError(Hop.TLS, to.datacenter, str(error)) from error
        except StreamError as error:
            raise HopError(Hop.DIAL, to.datacenter, str(error)) from error
        finally:
            stream.abort()

    async def _secured(self, stream: PushStream, to: Destination, deadline: float) -> PushStream:
        await stream.write(bytes((TYPE_BYTE_TLS_INSECURE,)))
        config = self._tls.config
        name = f"server.{to.datacenter}.{self._domain}"
        return await client_handshake(
            stream,
            self._tls.client(verify=config.has_ca),
            deadline=deadline,
            server_name=name,
            needed_name=name if config.verify_server_hostname else None,
        )
