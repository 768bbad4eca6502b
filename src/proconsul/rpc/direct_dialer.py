"""The way to servers that are routable: plain, or in TLS announced by a type byte.

Follows `ConnPool.dial` in Consul's agent/pool. `federation` adds the way through gateways.
"""

from __future__ import annotations

from proconsul.drivers.buffer import StreamError
from proconsul.drivers.stream import PushStream
from proconsul.drivers.tcp import ConnectError, connect
from proconsul.drivers.tls import client_handshake
from proconsul.drivers.tls_config import TlsContexts
from proconsul.drivers.tls_errors import TlsError
from proconsul.rpc.dialer import TYPE_BYTE_TLS, Destination, Hop, HopError, Purpose


class DirectDialer:
    """A `Dialer` without detours.

    With `verify_outgoing` connections are TLS; with `verify_server_hostname` the peer's certificate
    must be valid for `server.<datacenter>.<domain>`.
    """

    def __init__(
        self,
        tls: TlsContexts | None = None,
        domain: str = "consul",
        source: str | None = None,
    ) -> None:
        """`source` is the IP address to dial from."""
        self._tls, self._domain, self._source = tls, domain.rstrip("."), source

    async def dial(self, to: Destination, purpose: Purpose, deadline: float) -> PushStream:
        """See `Dialer.dial`."""
        if purpose.type_byte is None:
            raise HopError(
                Hop.RPC, to.datacenter, f"{purpose.alpn} exists through mesh gateways only"
            )
        local = (self._source, 0) if self._source else None
        try:
            stream: PushStream = await connect(to.address, deadline, local)
        except ConnectError as error:
            raise HopError(Hop.DIAL, to.datacenter, str(error)) from error
        try:
            stream = await self._secured(stream, to, deadline)
            await stream.write(bytes((purpose.type_byte,)))
        except TlsError as error:
            raise HopError(Hop.TLS, to.datacenter, f"{_name(to)}: {error}") from error
        except StreamError as error:
            raise HopError(Hop.DIAL, to.datacenter, f"{_name(to)}: {error}") from error
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _secured(self, stream: PushStream, to: Destination, deadline: float) -> PushStream:
        tls = self._tls
        if tls is None or not tls.config.use_tls:
            return stream
        await stream.write(bytes((TYPE_BYTE_TLS,)))
        name = f"server.{to.datacenter}.{self._domain}"
        needed = name if tls.config.verify_server_hostname else None
        return await client_handshake(
            stream,
            tls.client(verify=tls.config.verify_outgoing),
            deadline=deadline,
            server_name=name,
            needed_name=needed,
        )


def _name(to: Destination) -> str:
    return f"server {to.node} ({to.address[0]}:{to.address[1]})"
